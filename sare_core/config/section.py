"""A group of settings, as each room declares its own: typed, checked, and honest about what changes the output.

A section's fields change the output and are part of its stage's fingerprint, except those that the section lists in
`runtime`: batch sizes, worker counts and the like, which may differ from run to run without touching a byte; and those
in `files`: models and tables, which count by their content or commit, not by their name. A model's revision is of a hub
id: null stands for the commit that the work folder has locked (models/pins.py); `sare pin` writes it out.
A field that is added later stands in `neutral` with the value that changes nothing: while it has that value it is left
out of the fingerprint, so that the folders made before it keep their names.
Where the paper is silent the chosen reading and its alternatives stand at the field, here and nowhere else.
"""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

Dtype = Literal["float32", "float16", "bfloat16"]


class Section(BaseModel):
    """A group of settings. Unknown keys are refused; values are never changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)
    runtime: ClassVar[frozenset[str]] = frozenset()
    files: ClassVar[frozenset[str]] = frozenset()
    neutral: ClassVar[dict[str, Any]] = {}
    models: ClassVar[dict[str, str]] = {}  # each of `files` that may be a hub id, and the key of its revision

    def fingerprint_fields(self) -> dict[str, Any]:
        """The fields that change the output, as plain JSON values: what a fingerprint hashes."""
        neutral = {name for name, value in self.neutral.items() if getattr(self, name) == value}
        fields = self.model_dump(mode="json", exclude={*self.runtime, *self.files, *neutral})
        nested = {name: value.fingerprint_fields() for name, value in self if isinstance(value, Section)}
        return fields | {name: value for name, value in nested.items() if name in fields}
