"""What a stage has done with each shard. A record is the only switch: what no record names does not count.

One folder a fingerprint, under `WORK/<dataset>/<stage>/<fp>/`:

    about.json               what made this folder: stage, version, settings in clear, weights, the folder before
    00003-<digest>.tar       a shard's output, under a name that holds its SHA-256
    records/00003.json       the record that names it, put last
    claims/00003.json        a hint that somebody works on it
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from sare_core.errors import ConfigError
from sare_core.fingerprint import fingerprint
from sare_core.storage import Store

FORMAT = 1


class Output(BaseModel):
    """A file that a record vouches for."""

    name: str
    bytes: int
    sha256: str


class Failure(BaseModel):
    """One image that a stage could not do, and why."""

    image_id: str
    path: str
    reason: str


class Record(BaseModel):
    """What became of one shard. images = ok + len(failures); inputs are the digests of what it was made from."""

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    stage: str
    fingerprint: str
    dataset: str
    shard: int
    subset: str
    split: str
    status: Literal["done", "failed"]
    error: str | None = None  # why the shard failed
    settings: dict[str, Any]
    inputs: dict[str, str]
    output: Output | None = None
    fields: list[str]  # that every sample of the output has
    images: int
    ok: int
    failures: list[Failure]
    started: str  # UTC, ISO 8601
    seconds: float
    host: str
    device: str
    libraries: dict[str, str]


@dataclass(frozen=True)
class State:
    """What a shard's files say of it now. `why` says what is wrong or in the way; empty when done."""

    kind: Literal["done", "open", "running", "failed", "stale"]
    why: str = ""
    waiting: bool = False  # the stage before has to be done first

    def __str__(self) -> str:
        return f"{self.kind} ({self.why})" if self.why else self.kind


class Folder:
    """The folder of one fingerprint: its description, its records, its outputs.

    made_by: everything that the fingerprint hashes, in clear; `upstream` is the folder whose outputs go in.
    """

    def __init__(self, work: str, dataset: str, stage: str, made_by: dict[str, Any], upstream: "Folder | None") -> None:
        self.work, self.dataset, self.stage, self.made_by, self.upstream = work, dataset, stage, made_by, upstream
        self.fingerprint = fingerprint(made_by)
        self.store = Store(work).at(f"{dataset}/{stage}/{self.fingerprint}")

    @staticmethod
    def open(work: str, dataset: str, stage: str, name: str) -> "Folder":
        """A folder that is there, from its own description. Raises ConfigError: no or a broken about.json."""
        store = Store(work).at(f"{dataset}/{stage}/{name}")
        try:
            about = json.loads(store.read("about.json"))
            upstream = about["upstream"]
            before = Folder.open(work, upstream["dataset"], upstream["stage"], upstream["name"]) if upstream else None
            folder = Folder(work, dataset, stage, about["made_by"], before)
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{store.path('about.json')}: missing or unreadable; run the stage again to write it anew."
            ) from error
        if folder.fingerprint != name:
            raise ConfigError(f"{store.path('about.json')}: does not describe this folder (its digest is another).")
        return folder

    def describe(self, **notes: Any) -> None:
        """Write about.json, so that status and verify need no preset and no model."""
        before = self.upstream and {
            "dataset": self.upstream.dataset,
            "stage": self.upstream.stage,
            "name": self.upstream.fingerprint,
        }
        now = datetime.now(UTC).isoformat(timespec="seconds")
        about = {"stage": self.stage, "made_by": self.made_by, "upstream": before, "described": now, **notes}
        self.store.write("about.json", json.dumps(about, indent=1, ensure_ascii=False).encode())

    def notes(self) -> dict[str, Any]:
        """about.json as it lies. Raises FileNotFoundError."""
        return json.loads(self.store.read("about.json"))

    def record(self, shard: int) -> Record | None:
        """The record of a shard, or None. Raises ConfigError when it cannot be read."""
        name = f"records/{shard:05d}.json"
        try:
            return Record.model_validate_json(self.store.read(name))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise ConfigError(
                f"{self.store.path(name)}: not a whole record; delete it and run the stage again."
            ) from error

    def records(self, shards: Collection[int] | None = None) -> dict[int, Record]:
        """The records of some shards, or all; one that cannot be read is left out (the shard's state says so)."""
        found = {}
        for name in self.store.names("records"):
            stem = name.removesuffix(".json")
            if name.endswith(".json") and stem.isdigit() and (shards is None or int(stem) in shards):
                try:
                    record = self.record(int(stem))
                except ConfigError:
                    continue
                if record is not None:
                    found[int(stem)] = record
        return found

    def commit(self, record: Record) -> None:
        """Put a record in place: from here on its output counts."""
        self.store.write(f"records/{record.shard:05d}.json", record.model_dump_json(indent=1).encode())

    @staticmethod
    def inputs(index_digest: str, upstream: Record | None) -> dict[str, str]:
        """Digests of what a shard would be made from now."""
        inputs = {"index": index_digest}
        if upstream is not None and upstream.output is not None:
            inputs[upstream.stage] = upstream.output.sha256
        return inputs

    def states(self, digests: dict[int, str]) -> dict[int, State]:
        """The state of each shard of `digests` (shard number to the digest of its index rows), claims left aside."""
        records, names = self.records(digests.keys()), set(self.store.names())
        lying = set(self.store.names("records"))
        before = self.upstream.states(digests) if self.upstream else {}
        sources = self.upstream.records(digests.keys()) if self.upstream else {}
        states = {}
        for shard, digest in digests.items():
            record = records.get(shard)
            changed = _changed(record.inputs, self.inputs(digest, sources.get(shard))) if record else ""
            waits = f"waits for {self.upstream.stage}" if self.upstream and before[shard].kind != "done" else ""
            if record is None and f"{shard:05d}.json" in lying:
                states[shard] = State("stale", "its record cannot be read")
            elif record is None:
                states[shard] = State("open", waits, waiting=bool(waits))
            elif changed or waits:
                states[shard] = State("stale", changed or waits, waiting=bool(waits))
            elif record.status == "failed":
                states[shard] = State("failed", record.error or "")
            elif record.output is None or record.output.name not in names:
                states[shard] = State("stale", "its output is gone")
            else:
                states[shard] = State("done")
        return states


def _changed(before: dict[str, str], now: dict[str, str]) -> str:
    what = {"index": "rows of the index"}
    return ", ".join(
        f"{what.get(key, key)} changed ({before.get(key, 'none')[:8]} → {now.get(key, 'none')[:8]})"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    )
