"""What a record says: what became of one shard, from what, with which output, and what failed."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sare_core.engine.names import Digest, OutputName

FORMAT: Literal[1] = 1
Count = Annotated[int, Field(ge=0, le=10**12)]
Seconds = Annotated[float, Field(ge=0, le=1e10, allow_inf_nan=False)]


class Output(BaseModel):
    """A file that a record vouches for."""

    name: OutputName
    bytes: Count
    sha256: Digest


class Failure(BaseModel):
    """One image that a stage could not do, and why."""

    image_id: str
    path: str
    reason: str


class Record(BaseModel):
    """What became of one shard. images = ok + len(failures); inputs are the digests of what it was made from."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = FORMAT
    stage: str
    fingerprint: str
    dataset: str
    shard: Annotated[int, Field(ge=0, lt=2**31)]
    subset: str
    split: str
    status: Literal["done", "failed"]
    error: str | None = None  # why the shard failed
    settings: dict[str, Any]
    inputs: dict[Annotated[str, Field(pattern=r"^[a-z]+(\.[a-z0-9_]+)?$")], Annotated[str, Field(pattern=r"^\S+$")]]
    output: Output | None = None
    fields: list[str]  # that every sample of the output has
    images: Count
    ok: Count
    failures: list[Failure]
    started: str  # UTC, ISO 8601
    seconds: Seconds  # of shards that were computed together, its share by images
    together: list[int] = []  # the shards that it was computed with, itself among them; none: by itself
    batches: dict[str, Count] = {}  # images that each part of a model took at once, at most, and rows left empty
    host: str
    device: str
    libraries: dict[str, str]

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if "index" not in self.inputs:
            raise ValueError("inputs: lacks the digest of the index")
        if self.output is not None and int(self.output.name.partition("-")[0]) != self.shard:
            raise ValueError("output: is another shard's")
        return self
