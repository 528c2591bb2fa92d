"""What a stage has done with each shard. A shard is committed once its record exists; what no record names
does not count.

One folder a fingerprint, under `WORK/<dataset>/<stage>/<fp>/`:

    about.json               what made this folder, in full: stage, version, settings, models, the folders before
    00003-<digest>.tar       a shard's output, under a name that holds its SHA-256
    records/00003.json       the record that names it, put last (sare_core/engine/ledger.py: how records lie)
    claims/00003.json        somebody works on it; claims/folder.json: somebody removes or gathers files here
"""

import json
import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from sare_core.engine.about import About, State, Upstream, read_about
from sare_core.engine.fingerprint import fingerprint
from sare_core.engine.ledger import FEW, Entry, Ledger, inputs_text, read_inputs
from sare_core.engine.outputs import checked_output
from sare_core.engine.record import Failure, Output, Record
from sare_core.errors import ConfigError, StageError
from sare_core.store.storage import Store

if TYPE_CHECKING:
    from sare_core.engine.manifest import Index

__all__ = ["COMMANDS", "STAGES", "About", "Failure", "Folder", "Output", "Record", "State", "places"]

STAGES = ("captions", "reconstructions", "detectors", "predictions")  # each is made from one that stands before it
COMMANDS = dict(zip(STAGES, ("caption", "reconstruct", "train", "evaluate"), strict=True))  # of `sare`


def places(work: str, dataset: str | None = None) -> Iterator[tuple[str, str, str]]:
    """Dataset, stage and fingerprint of every folder of every stage, of one dataset or of all, readable or not."""
    store = Store(work)
    for name in [dataset] if dataset else store.folders():
        for stage in STAGES:
            for folder in store.folders(f"{name}/{stage}"):
                yield name, stage, folder


class Folder:
    """The folder of one fingerprint: its description, its records, its outputs.

    made_by: everything that the fingerprint hashes, in clear. upstream: the folders whose outputs go in, by the role
    that they play; of most, the name of their stage. models: by role, as the settings name them. settings: all that the
    run has, of which made_by holds what counts.
    """

    def __init__(
        self,
        work: str,
        dataset: str,
        stage: str,
        made_by: dict[str, Any],
        upstream: "dict[str, Folder] | None" = None,
        models: dict[str, str] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.work, self.dataset, self.stage, self.made_by = work, dataset, stage, made_by
        self.upstream, self.models, self.settings = upstream or {}, models or {}, settings
        self.fingerprint = fingerprint(made_by)
        self.store = Store(work).at(f"{dataset}/{stage}/{self.fingerprint}")
        self.ledger = Ledger(self.store)
        self._described: About | None = None  # by this process

    @staticmethod
    def open(work: str, dataset: str, stage: str, name: str) -> "Folder":
        """A folder that is there, from its own description. Raises ConfigError: no or a broken about.json."""
        store = Store(work).at(f"{dataset}/{stage}/{name}")
        try:
            about = read_about(store)
            for source in about.upstream.values():
                if source.stage not in STAGES[: STAGES.index(stage)]:
                    raise ValueError(f"{stage} are not made from {source.stage}")
            before = {role: Folder._before(work, source) for role, source in about.upstream.items()}
            folder = Folder(work, dataset, stage, about.made_by, before, about.models, about.settings)
        except (FileNotFoundError, ValueError) as error:  # pydantic's is a ValueError
            raise ConfigError(
                f"{store.path('about.json')}: missing or unreadable; run the stage again to write it anew."
            ) from error
        if folder.fingerprint != name:
            raise ConfigError(f"{store.path('about.json')}: does not describe this folder (its digest is another).")
        return folder

    @staticmethod
    def _before(work: str, source: Upstream) -> "Folder":
        """A folder that another is made from, by its own description; while it has none, by the other's."""
        if not source.made_by or Store(work).at(f"{source.dataset}/{source.stage}/{source.name}").exists("about.json"):
            return Folder.open(work, source.dataset, source.stage, source.name)
        before = {role: Folder._before(work, further) for role, further in source.upstream.items()}
        return Folder(work, source.dataset, source.stage, source.made_by, before, source.models)

    def describe(self, run: str | None = None, **notes: Any) -> str:
        """Write about.json, so that status and verify need no preset and no model. Returns the run's name.

        run: a name for what it is made for. A folder keeps the names of all runs that use it; it is not part of the
        fingerprint. Raises ConfigError: not a name.
        """
        try:
            before = self.about().runs
        except (FileNotFoundError, ValueError):  # not described yet, or unreadable and now written anew
            before = []
        names = [name for name in before if name != run] + ([] if run is None else [check_run_name(run)])
        now = datetime.now(UTC).isoformat(timespec="seconds")
        about = self.origin()
        del about["name"]  # its place says it
        about |= {"settings": self.settings, "described": now, "runs": names} | notes
        self.store.write("about.json", json.dumps(about, indent=1, ensure_ascii=False).encode())
        self._described = About.model_validate(about)
        return self._described.names()[-1]

    def origin(self) -> dict[str, Any]:
        """What made it, and what made the folders before, as about.json has it."""
        return {
            "dataset": self.dataset,
            "stage": self.stage,
            "name": self.fingerprint,
            "made_by": self.made_by,
            "models": self.models,
            "upstream": {role: folder.origin() for role, folder in self.upstream.items()},
        }

    def about(self) -> About:
        """What about.json says of it now. Raises FileNotFoundError; ValueError: it cannot be read."""
        return read_about(self.store)

    def runs(self) -> list[str]:
        """The names of the runs that use the folder, the latest last; else its preset's. Raises FileNotFoundError."""
        return self.about().names()

    def record(self, shard: int) -> Record | None:
        """The record of a shard, or None. Raises ConfigError when it cannot be read."""
        return self.ledger.record(shard)

    def output(self, record: Record) -> Path:
        """Where to read a shard's output. Raises StageError unless its bytes are those that the record names."""
        if record.output is None:
            raise StageError(f"{self.store.url}: shard {record.shard} has no output; run the stage again.")
        return checked_output(self.store, record.output.name, record.output.sha256)

    def records(self, shards: Collection[int] | None = None) -> dict[int, Record]:
        """The records of some shards, or all; one that cannot be read is left out (the shard's state says so)."""
        return self.ledger.records(shards)

    def failures(self, shards: Collection[int]) -> list[Failure]:
        """The images that failed in those of some shards that are done."""
        entries, _ = self.ledger.entries(shards)
        failing = [shard for shard, entry in entries.items() if entry.status == "done" and entry.failed]
        return [failure for record in self.records(failing).values() for failure in record.failures]

    def commit(self, record: Record) -> None:
        """Put a record in place: from here on its output counts."""
        self.ledger.commit(record)

    def expected(self, index: "Index") -> list[int]:
        """The shards that the folder's last run was to bring up to date, as its description says."""
        about = self._described or self.about()
        shards: list[int] = []
        for split in about.splits:
            shards += index.select([split], None if split == "test" else about.train_subsets)["shard"].to_list()
        return sorted(shards)

    @staticmethod
    def inputs(index_digest: str, upstream: dict[str, Record | None]) -> dict[str, str]:
        """Digests of what a shard would be made from now."""
        inputs = {"index": index_digest}
        for role, record in upstream.items():
            if record is not None and record.output is not None:
                inputs[role] = record.output.sha256
        return inputs

    def states(self, digests: dict[int, str]) -> dict[int, State]:
        """The state of each shard of `digests` (shard number to the digest of its index rows), claims left aside."""
        if len(digests) <= FEW:
            return self.states_and_entries(digests)[0]
        # Of a hundred thousand shards nearly all are done, and a join of tables says so in no time.
        table = pl.DataFrame(
            {"shard": list(digests), "digest": list(digests.values())}, {"shard": pl.Int32, "digest": pl.String}
        )
        states = dict.fromkeys(self._surely_done(table)["shard"].to_list(), State("done"))
        states |= self.states_and_entries({s: digest for s, digest in digests.items() if s not in states})[0]
        return {shard: states[shard] for shard in digests}

    def undone(self, index: "Index", shards: Collection[int]) -> dict[int, State]:
        """The states of those of an index's shards that are not done."""
        states = self.states({shard: index.digests[shard] for shard in shards})
        return {shard: state for shard, state in states.items() if state.kind != "done"}

    def _surely_done(self, digests: pl.DataFrame) -> pl.DataFrame:
        """Shards that a complete folder's parquet shows to be done, with the SHA-256 of their outputs."""
        rows = self.ledger.gathered().join(digests, on="shard").filter(pl.col("status") == "done")
        expected = {"index": pl.col("digest")}
        for role, folder in self.upstream.items():
            before = folder._surely_done(digests).rename({"sha256": f"from {role}"})
            rows, expected[role] = rows.join(before, on="shard"), pl.col(f"from {role}")
        text = pl.concat_str(
            [pl.format(f"{name}:{{}}", column) for name, column in sorted(expected.items(), key=lambda item: item[0])],
            separator=" ",
        )
        rows = rows.filter(pl.col("inputs") == text, pl.col("output").is_not_null())
        if self.store.on_disk and len(rows):
            rows = rows.filter(pl.col("output").is_in(self.store.names()))
        return rows.select("shard", "sha256")

    def shards_with_failures(self, digests: dict[int, str]) -> list[int]:
        """Shards that were done but for some images, or before some images of the stage before were."""
        states, entries = self.states_and_entries(digests)
        return [
            shard
            for shard, state in states.items()
            if (entry := entries.get(shard))
            and entry.status == "done"
            and entry.output
            and read_inputs(entry.inputs)["index"] == digests[shard]
            and not state.waiting
            and (entry.failed if state.kind == "done" else self.store.exists(entry.output))
        ]

    def states_and_entries(self, digests: dict[int, str]) -> tuple[dict[int, State], dict[int, Entry]]:
        """As `states`, and what the records say, from one reading of them."""
        entries, broken = self.ledger.entries(digests.keys())
        before = {role: folder.states_and_entries(digests) for role, folder in self.upstream.items()}
        gone = self._gone(entries)
        states, done = {}, State("done")
        for shard, digest in digests.items():
            entry = entries.get(shard)
            inputs = {"index": digest}
            waits = ""
            for role, (of_before, sources) in before.items():
                if (source := sources.get(shard)) and source.output:
                    inputs[role] = source.sha256
                if of_before[shard].kind != "done":
                    waits = f"waits for {role}"
            # A hundred thousand times the same: what is written is compared, and read only where it differs.
            same = entry is not None and entry.inputs == inputs_text(inputs)
            changed = _changed(read_inputs(entry.inputs), inputs) if entry and not same else ""
            if shard in broken:
                states[shard] = State("stale", "its record cannot be read")
            elif entry is None:
                states[shard] = State("open", waits, waiting=bool(waits))
            elif changed or waits:
                states[shard] = State("stale", changed or waits, waiting=bool(waits))
            elif entry.status == "failed":
                states[shard] = State("failed", entry.error or "")
            elif shard in gone:
                states[shard] = State("stale", "its output is gone")
            else:
                states[shard] = done
        return states, entries

    def _gone(self, entries: dict[int, Entry]) -> set[int]:
        """The shards whose output is not there.

        What a complete folder's parquet names is taken as there on an object store, where to list it would cost a
        request for each 1,000 shards; `sare verify` looks, and a stage that misses it says so.
        """
        asked = {shard: e for shard, e in entries.items() if self.store.on_disk or not e.compacted}
        if len(asked) <= FEW:
            return {s for s, e in asked.items() if e.output is None or not self.store.exists(e.output)}
        names = set(self.store.names())
        return {shard for shard, entry in asked.items() if entry.output not in names}


def check_run_name(name: str) -> str:
    """The name. Raises ConfigError unless it fits into tables and lines."""
    if not re.fullmatch(r"\w[\w.+-]{0,39}", name):
        raise ConfigError(f"--run {name!r}: use up to 40 letters, digits, dots, dashes, plus signs and underscores.")
    return name


def _changed(before: dict[str, str], now: dict[str, str]) -> str:
    what = {"index": "rows of the index"}
    return ", ".join(
        f"{what.get(key, key)} changed ({before.get(key, 'none')[:8]} → {now.get(key, 'none')[:8]})"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    )
