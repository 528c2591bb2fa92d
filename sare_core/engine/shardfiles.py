"""A shard's output as it is written and read back: parquet for rows, webdataset tar for samples.

The bytes depend on the samples alone: no times, no owners, one order. A tar cut between two members reads without any
error, so what was read back is compared with what was written, key by key, and the SHA-256 stands in the record.
"""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from sare_core.errors import StageError

_AT_ONCE = 1 << 24  # bytes of a member that are written together


class ShardWriter(Protocol):
    """Takes samples one by one; the file is whole after `close`."""

    def write(self, sample: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class ParquetWriter:
    """Rows of a fixed schema, sorted by image_id: the same bytes for every batch size."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema, self._rows = path, schema, []  # type: ignore[var-annotated]

    def write(self, sample: dict[str, Any]) -> None:
        self._rows.append(sample)

    def close(self) -> None:
        rows = sorted(self._rows, key=lambda row: row["image_id"])
        pq.write_table(pa.Table.from_pylist(rows, schema=self._schema), self._path, compression="zstd")


class TarWriter:
    """Samples of bytes under `__key__`, through webdataset, with every time at zero."""

    def __init__(self, path: Path) -> None:
        import webdataset

        self._file = path.open("wb")
        # Bytes only (encoder off): webdataset would save a PIL image under jpg lossily.
        self._tar = webdataset.TarWriter(self._file, encoder=False, mtime=0)
        # webdataset's own stream takes a member apart into 10 KB; whole, the same bytes take half of the time, and the
        # thread waits for the GIL once.
        form = tarfile.USTAR_FORMAT
        self._tar.tarstream = tarfile.TarFile(fileobj=self._file, mode="w", format=form, copybufsize=_AT_ONCE)

    def write(self, sample: dict[str, Any]) -> None:
        self._tar.write(sample)

    def close(self) -> None:
        self._tar.close()
        self._file.close()


def read_back(path: Path) -> dict[str, set[str]]:
    """The fields of each key in a shard's file.

    Raises StageError: not readable to its end, a key twice, or a member that is not a plain file of this folder.
    """
    if path.suffix == ".parquet":
        try:
            table = pq.read_table(path)
            keys = table.column("image_id").to_pylist()
        except (pa.ArrowException, OSError, KeyError) as error:
            raise StageError(f"{path}: not readable as a parquet of image_ids ({error})") from error
        if len(set(keys)) < len(keys):
            raise StageError(f"{path}: an image_id stands in it twice")
        return {key: set(table.column_names) for key in keys}
    found: dict[str, set[str]] = {}
    for key, field, _ in tar_members(path):
        if field in found.setdefault(key, set()):
            raise StageError(f"{path}: {key}.{field} stands in it twice")
        found[key].add(field)
    return found


def tar_members(path: Path) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Key, field and header of each member; `offset_data` and `size` of the header say where its bytes lie.

    Raises StageError: cut or damaged, or a member that is not a plain file of this folder.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, dot, field = member.name.partition(".")
                if not member.isreg() or "/" in member.name or not key or not dot:
                    raise StageError(f"{path}: member {member.name!r} is not a sample's field")
                yield key, field, member
    except (tarfile.TarError, OSError, EOFError) as error:
        raise StageError(f"{path}: not readable as tar to its end ({error})") from error


class TarReader:
    """Random access to one shard's samples, by key. The headers are read once, when it is opened."""

    def __init__(self, path: Path) -> None:
        # Kept open: a copy of an object store's file may be removed while training still reads it.
        self._file = path.open("rb")
        self._places: dict[str, dict[str, tuple[int, int]]] = {}
        for key, field, member in tar_members(path):
            self._places.setdefault(key, {})[field] = (member.offset_data, member.size)

    def __iter__(self) -> Iterator[str]:
        """The keys of all samples, in the order in which they lie."""
        return iter(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def fields(self, key: str) -> set[str]:
        """The fields of a sample; empty when there is no such sample."""
        return set(self._places.get(key, {}))

    def read(self, key: str, field: str) -> bytes:
        """One field's bytes. Raises KeyError."""
        offset, size = self._places[key][field]
        return os.pread(self._file.fileno(), size, offset)  # threads share the file

    def __getitem__(self, key: str) -> dict[str, Any]:
        """All fields of a sample, and its key as webdataset writes it. Raises KeyError."""
        return {"__key__": key} | {field: self.read(key, field) for field in self._places[key]}


def read_samples(path: Path) -> "TarReader | dict[str, dict[str, Any]]":
    """What a stage has written, by image_id, as it was given to the writer."""
    return TarReader(path) if path.suffix == ".tar" else {row["image_id"]: row for row in read_rows(path)}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a parquet shard."""
    return pq.read_table(io.BytesIO(path.read_bytes())).to_pylist()
