"""What a folder says of itself in about.json, and what its files say of a shard."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from sare_core.engine.names import DatasetName, Fingerprint
from sare_core.store.storage import Store


@dataclass(frozen=True)
class State:
    """What a shard's files say of it now. `why` says what is wrong or in the way; empty when done."""

    kind: Literal["done", "open", "running", "failed", "stale"]
    why: str = ""
    waiting: bool = False  # the stage before has to be done first

    def __str__(self) -> str:
        return f"{self.kind} ({self.why})" if self.why else self.kind


class Upstream(BaseModel):
    """A folder that another is made from: where it lies in the work folder, and what made it."""

    dataset: DatasetName
    stage: str  # one that stands before in STAGES
    name: Fingerprint
    made_by: dict[str, Any] = {}
    models: dict[str, str] = {}
    upstream: "dict[str, Upstream]" = {}


class About(BaseModel):
    """What about.json says; a stage may note more in it. A copy of it tells the whole story without the folders before.

    models: by role, as the settings name them; made_by holds their digests. settings: all, as the run had them.
    """

    model_config = ConfigDict(extra="allow")

    made_by: dict[str, Any]
    upstream: dict[str, Upstream]
    models: dict[str, str] = {}
    settings: dict[str, Any] | None = None
    dataset: str = ""
    described: str = ""
    detector: str = ""  # of predictions: where it lies
    runs: list[str] = []
    preset: str = ""
    splits: list[str] = ["train", "val", "test"]
    train_subsets: list[str] | None = None

    @field_validator("upstream", mode="before")
    @classmethod
    def by_role(cls, value: Any) -> Any:
        """Version 0.1 had one folder before, or null."""
        if isinstance(value, dict) and "stage" in value:
            return {value["stage"]: value}
        return {} if value is None else value

    def names(self) -> list[str]:
        """The names of the runs that use the folder, the latest last; else its preset's."""
        return self.runs or [Path(self.preset).stem]


def read_about(store: Store) -> About:
    """What a folder says of itself. Raises FileNotFoundError; ValueError: it cannot be read."""
    return About.model_validate_json(store.read("about.json"))
