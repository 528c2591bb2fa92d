"""The records of one folder as they lie: one small JSON a shard while work goes on, one parquet when it is complete.

    records/00003.json         a record; one that lies here goes before the parquet's
    records.json               once the stage is complete: names the parquet
    records-<digest>.parquet   a row a record: its JSON, word for word, and beside it what `status` and a rerun ask for

A folder of 100,000 shards is then read by a few requests and not by 100,000.
"""

import hashlib
import json
from collections.abc import Collection, Set
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from sare_core.engine.claims import claimed_folder, claimed_shards
from sare_core.engine.faults import point
from sare_core.engine.names import RecordsName
from sare_core.engine.record import Record
from sare_core.errors import ConfigError
from sare_core.store.storage import Store, is_as_named

SWITCH = "records.json"
# On a disk fewer records are read at once as they are, and are pleasant to look at. On an object store each costs a
# request, so there every complete folder is compacted.
COMPACT_FROM = 1000
FEW = 16  # so many records are asked for by name; for more the folder is listed
_ROW_GROUP = 2000
_BATCH = 200  # gathered records that are compared and removed together


class Switch(BaseModel):
    """What records.json says: the parquet that counts."""

    file: RecordsName


class Entry(NamedTuple):
    """What a rerun and `status` need of a record. failed: images; compacted: it lies in the parquet."""

    status: str
    error: str | None
    inputs: str  # by `inputs_text`: compared far more often than read
    output: str | None
    sha256: str
    images: int
    failed: int
    seconds: float
    compacted: bool


_SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("inputs", pa.string()),  # by `inputs_text`
        ("output", pa.string()),
        ("sha256", pa.string()),
        ("images", pa.int64()),
        ("failed", pa.int64()),
        ("seconds", pa.float64()),
        ("record", pa.string()),
    ]
)
_LIGHT = _SCHEMA.names[:-1]


class Ledger:
    """Reads and writes the records of the folder that `store` is."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def commit(self, record: Record) -> None:
        """Put a record in place: from here on its output counts."""
        self._store.write(_name(record.shard), record.model_dump_json(indent=1).encode())

    def entries(self, shards: Collection[int] | None = None) -> tuple[dict[int, Entry], set[int]]:
        """What the records of some shards say, or of all; and the shards whose record cannot be read."""
        # The small files first, here and below: what is gathered in between stands in the parquet then.
        loose = self._loose(shards)
        found, broken = self._compacted_entries(shards), set()
        for shard, data in loose.items():
            try:
                found[shard] = _entry(Record.model_validate_json(data))
            except ValidationError:
                found.pop(shard, None)
                broken.add(shard)
        return found, broken

    def record(self, shard: int) -> Record | None:
        """The record of a shard, or None. Raises ConfigError when it cannot be read."""
        records, broken = self._read([shard])
        if broken:
            raise ConfigError(
                f"{self._store.path(_name(shard))}: not a whole record; delete it and run the stage again."
            )
        return records.get(shard)

    def records(self, shards: Collection[int] | None = None) -> dict[int, Record]:
        """The records of some shards, or of all, by shard; one that cannot be read is left out."""
        return self._read(shards)[0]

    def _read(self, shards: Collection[int] | None) -> tuple[dict[int, Record], set[int]]:
        """Records by shard, and the shards whose record cannot be read."""
        loose, found, broken = self._loose(shards), dict[int, Record](), set[int]()
        for shard, data in sorted((self._compacted_texts(shards) | loose).items()):
            try:
                found[shard] = Record.model_validate_json(data)
            except ValidationError:
                broken.add(shard)
        return found, broken

    def file(self) -> str | None:
        """The name of the parquet that counts, or None. Raises ConfigError: the switch cannot be read."""
        try:
            return Switch.model_validate_json(self._store.read(SWITCH)).file
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise ConfigError(
                f"{self._store.path(SWITCH)}: not readable. Name in it the newest records-….parquet that lies beside "
                'it, as {"file": "records-….parquet"}; without that its shards would be done again.'
            ) from error

    def recorded(self) -> set[int]:
        """The shards with a record of their own, as it lies from its commit until records are gathered. Reads none."""
        return set(self._loose_names(None))

    def complete(self, shards: Collection[int]) -> bool:
        """Whether each of these shards has a record, without reading any."""
        missing = set(shards) - self.recorded()
        if not missing or (path := self._parquet()) is None:
            return not missing
        return missing <= set(_light(path)["shard"].to_pylist())

    def compact(self, shards: Collection[int]) -> bool:
        """Gather the records of these shards into one parquet, where that is worth while; whether it was.

        What lies there counts until the switch is put, and what is gathered goes last: a kill loses nothing. A shard
        that somebody works on is left out: its record may be replaced at any moment.
        """
        wanted = set(shards)
        if len(self._loose_names(None).keys() & wanted) < (COMPACT_FROM if self._store.on_disk else 1):
            return False
        with claimed_folder(self._store) as held:
            return held and self._gather(wanted, claimed_shards(self._store).keys())

    def _gather(self, wanted: Set[int], busy: Set[int]) -> bool:
        before = self.file()
        loose = {shard: data for shard, data in self._loose(None).items() if shard in wanted and shard not in busy}
        try:
            texts = self._compacted_texts(None) | {shard: data.decode() for shard, data in loose.items()}
            rows = {shard: _row(text) for shard, text in texts.items()}
        except ValueError:
            return False  # one cannot be read: its shard is done again first
        if not loose:
            return False
        if left := rows.keys() - wanted:
            # They left the index, or this process knows an older one: kept until gc has removed what they name.
            outputs = set(self._store.names())
            rows = {shard: row for shard, row in rows.items() if shard not in left or row["output"] in outputs}
        table = pa.Table.from_pylist([rows[shard] for shard in sorted(rows)], schema=_SCHEMA)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=_ROW_GROUP)
        data = sink.getvalue().to_pybytes()
        name = f"records-{hashlib.sha256(data).hexdigest()[:12]}.parquet"
        self._store.write(name, data)
        point("compacted")
        if self.file() != before:
            return False  # another process gathered while this one hung
        self._store.write(SWITCH, json.dumps({"file": name, "records": len(rows)}).encode())
        point("compacted-named")
        gathered = list(loose.items())
        for start in range(0, len(gathered), _BATCH):
            batch = {_name(shard): data for shard, data in gathered[start : start + _BATCH]}
            # Nobody should have replaced one meanwhile; who did, without a claim or with an expired one, keeps it.
            now = self._store.read_many(list(batch))
            self._store.delete_many([name for name, data in batch.items() if now.get(name) == data])
        return True

    def gathered(self) -> pl.DataFrame:
        """What the parquet says beside the records' JSON, but for shards that have a later record."""
        later = list(self._loose_names(None))
        if (path := self._parquet()) is None:
            return pl.DataFrame(_SCHEMA.empty_table().select(_LIGHT))
        return pl.DataFrame(_light(path)).filter(~pl.col("shard").is_in(later))

    def libraries(self) -> list[tuple[dict[str, str], int]]:
        """Each set of library versions that made a shard's output, and how many shards it made."""
        loose = self._loose(None)
        texts = pl.DataFrame(
            {"record": [data.decode(errors="replace") for data in loose.values()]}, {"record": pl.String}
        )
        if (path := self._parquet()) is not None:
            gathered = pl.read_parquet(path, columns=["shard", "record"], glob=False)
            texts = pl.concat([texts, gathered.filter(~pl.col("shard").is_in(list(loose))).select("record")])
        # Found in the text: a hundred thousand records are not parsed for what is nearly always one and the same.
        done = texts.filter(pl.col("record").str.contains(r'"status":\s*"done"'))
        found = done.select(pl.col("record").str.extract(r'"libraries":\s*(\{[^{}]*\})')).drop_nulls()
        return [(json.loads(text), count) for text, count in found.group_by("record").len().iter_rows()]

    def _loose_names(self, shards: Collection[int] | None) -> dict[int, str]:
        if shards is not None and len(shards) <= FEW:
            return {shard: _name(shard) for shard in shards}
        found = {}
        for name in self._store.names("records"):
            stem = name.removesuffix(".json")
            if name.endswith(".json") and stem.isdigit() and (shards is None or int(stem) in shards):
                found[int(stem)] = f"records/{name}"
        return found

    def _loose(self, shards: Collection[int] | None) -> dict[int, bytes]:
        names = self._loose_names(set(shards) if shards is not None else None)
        read = self._store.read_many(list(names.values()))
        return {shard: read[name] for shard, name in names.items() if name in read}

    def _parquet(self) -> Path | None:
        if (name := self.file()) is None:
            return None
        try:
            path = self._store.local(name)
        except FileNotFoundError:
            path = None
        if path is None or not path.exists():
            raise ConfigError(
                f"{self._store.path(name)}: named by {SWITCH} but gone. Bring it back; or delete {SWITCH}, "
                "and its shards are done again."
            )
        if self._store.on_disk and not is_as_named(path):
            raise ConfigError(
                f"{self._store.path(name)}: damaged, its bytes are not those that its name promises. Bring it back "
                f"from a copy; or delete {SWITCH}, and its shards are done again."
            )
        return path

    def _compacted_entries(self, shards: Collection[int] | None) -> dict[int, Entry]:
        if (path := self._parquet()) is None:
            return {}
        table = _light(path)
        if shards is not None:
            table = table.filter(pc.is_in(table["shard"], pa.array(sorted(shards), pa.int32())))
        number, *others = (table[name].to_pylist() for name in _LIGHT)
        return dict(zip(number, map(Entry, *others, repeat(True)), strict=False))

    def _compacted_texts(self, shards: Collection[int] | None) -> dict[int, str]:
        if (path := self._parquet()) is None:
            return {}
        chosen = None if shards is None else [("shard", "in", sorted(shards))]
        if shards is not None and not shards:
            return {}
        table = pq.read_table(path, columns=["shard", "record"], filters=chosen)
        return dict(zip(table["shard"].to_pylist(), table["record"].to_pylist(), strict=True))


@lru_cache(maxsize=8)
def _light(path: Path) -> pa.Table:
    """The columns that a rerun needs. The name holds the content's digest, so it may be kept."""
    return pq.read_table(path, columns=_LIGHT)


def inputs_text(inputs: dict[str, str]) -> str:
    """Digests of inputs as `Entry` and the parquet have them: `captions:<digest> index:<digest>`."""
    return " ".join(f"{name}:{digest}" for name, digest in sorted(inputs.items()))


def read_inputs(text: str) -> dict[str, str]:
    """What `inputs_text` was given."""
    return dict(part.split(":", 1) for part in text.split())


def _name(shard: int) -> str:
    return f"records/{shard:05d}.json"


def _entry(record: Record) -> Entry:
    name, digest = (record.output.name, record.output.sha256) if record.output else (None, "")
    counts = (record.images, len(record.failures), record.seconds)
    return Entry(record.status, record.error, inputs_text(record.inputs), name, digest, *counts, compacted=False)


def _row(text: str) -> dict[str, Any]:
    record = Record.model_validate_json(text)
    entry = _entry(record)._asdict() | {"shard": record.shard, "record": text}
    return {name: entry[name] for name in _SCHEMA.names}
