import io
import random
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from sare_core.engine.shardfiles import (
    _AT_ONCE,
    ParquetWriter,
    TarReader,
    TarWriter,
    read_back,
    read_rows,
    tar_members,
)
from sare_core.errors import StageError
from sare_core.store.storage import sha256_file

SCHEMA = pa.schema([("image_id", pa.string()), ("caption", pa.string()), ("n_tokens", pa.int32())])
ROWS: list[dict[str, Any]] = [
    {"image_id": f"{number:020x}", "caption": f"a dog, été {number}", "n_tokens": number} for number in range(40)
]
SAMPLES: list[dict[str, Any]] = [
    {
        "__key__": f"{number:020x}",
        "jpg": bytes([number]) * (700 + number),
        "sare.png": bytes([255 - number]) * 1024,  # two whole blocks
        "reconstruction.png": b"",
        "json": b'{"label": 1}',
    }
    for number in range(4)
]
FIELDS = {sample["__key__"]: set(sample) - {"__key__"} for sample in SAMPLES}


def parquet(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    writer = ParquetWriter(path, SCHEMA)
    for row in rows:
        writer.write(row)
    writer.close()
    return path


def tar(path: Path, samples: list[dict[str, Any]] = SAMPLES) -> Path:
    writer = TarWriter(path)
    for sample in samples:
        writer.write(sample)
    writer.close()
    return path


def odd_tar(path: Path, *members: tuple[str, bytes]) -> Path:
    """Regular members with any names, as the standard library writes them."""
    with tarfile.open(path, "w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def test_the_same_samples_are_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tar(tmp_path / "a.tar").read_bytes()
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("getpass.getuser", lambda: "somebody")
    assert tar(tmp_path / "elsewhere.tar").read_bytes() == before
    with tarfile.open(tmp_path / "a.tar") as file:
        assert {info.mtime for info in file} == {0}


def test_a_tar_is_the_one_that_webdataset_writes(tmp_path: Path) -> None:
    samples = [*SAMPLES, {"__key__": "large", "png": bytes(_AT_ONCE + 1000)}]
    with (tmp_path / "theirs.tar").open("wb") as file, webdataset.TarWriter(file, encoder=False, mtime=0) as theirs:
        for sample in samples:
            theirs.write(sample)
    assert tar(tmp_path / "ours.tar", samples).read_bytes() == (tmp_path / "theirs.tar").read_bytes()


def test_rows_in_any_order_are_the_same_bytes(tmp_path: Path) -> None:
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    assert shuffled != ROWS
    a, b = parquet(tmp_path / "a.parquet"), parquet(tmp_path / "b.parquet", shuffled)
    assert a.read_bytes() == b.read_bytes()
    assert pq.read_schema(a).equals(SCHEMA)
    assert pq.read_table(a).to_pylist() == read_rows(a) == ROWS


def test_a_shard_reads_back(tmp_path: Path) -> None:
    assert read_back(tar(tmp_path / "a.tar")) == FIELDS
    assert read_back(parquet(tmp_path / "a.parquet")) == {row["image_id"]: set(SCHEMA.names) for row in ROWS}
    assert read_back(tar(tmp_path / "none.tar", [])) == read_back(parquet(tmp_path / "none.parquet", [])) == {}


def test_webdataset_reads_the_same_bytes(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar")
    read = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert len(read) == len(SAMPLES)
    for sample, written in zip(read, SAMPLES, strict=True):
        assert {key: sample[key] for key in sample if key not in ("__url__", "__local_path__")} == written


def test_random_access_is_what_tarfile_extracts(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar")
    reader = TarReader(path)
    with tarfile.open(path) as file:
        members = {info.name: file.extractfile(info).read() for info in file}  # type: ignore[union-attr]
    assert len(members) == 16
    for name, data in reversed(members.items()):
        key, _, field = name.partition(".")
        assert reader.read(key, field) == data
        assert reader[key][field] == data
    assert reader.fields(SAMPLES[0]["__key__"]) == FIELDS[SAMPLES[0]["__key__"]]
    assert reader.fields("unknown") == set()
    with pytest.raises(KeyError):
        reader.read("unknown", "json")


def test_random_access_behind_long_names_and_extended_headers(tmp_path: Path) -> None:
    key = "k" * 150
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as file:
        for name, data in ((f"{key}.json", b"one"), ("été.png", b"two")):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(data), {"comment": "x" * 600}
            file.addfile(info, io.BytesIO(data))
    reader = TarReader(tmp_path / "a.tar")
    assert (reader.read(key, "json"), reader.read("été", "png")) == (b"one", b"two")


def test_a_tar_cut_at_any_border_is_found(tmp_path: Path) -> None:
    """Each cut must show in an error or in the keys; one that takes only padding shows in the size alone."""
    whole = tar(tmp_path / "a.tar").read_bytes()
    cut, errors, shorter = tmp_path / "cut.tar", 0, 0
    for end in range(0, len(whole), 512):
        cut.write_bytes(whole[:end])
        try:
            if read_back(cut) == FIELDS:
                assert whole[end:] == bytes(len(whole) - end), f"cut at {end}"  # nothing but padding is lost
            else:
                shorter += 1
        except StageError as error:
            assert str(cut) in str(error)
            errors += 1
    # A sample has 4 headers and 5 blocks of data. Errors: within a member, or before the first one.
    assert (errors, shorter) == (1 + 4 * 5, 4 * 4 - 1)


def test_a_tar_cut_within_a_block_is_found(tmp_path: Path) -> None:
    whole = tar(tmp_path / "a.tar").read_bytes()
    content = len(whole.rstrip(b"\x00"))
    for end in range(1, content, 97):
        (tmp_path / "cut.tar").write_bytes(whole[:end])
        with suppress(StageError):
            assert read_back(tmp_path / "cut.tar") != FIELDS, f"cut at {end}"


def test_a_flipped_byte_is_another_digest(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar")
    data, digest = bytearray(path.read_bytes()), sha256_file(path)
    for place in range(0, len(data), 1500):
        data[place] ^= 1
        path.write_bytes(data)
        assert sha256_file(path) != digest
        data[place] ^= 1


@pytest.mark.parametrize(
    "name",
    ["../x.png", "/abs.png", "a/b.json", "./a.json", "..", ".png", "json", "a/../../b.png"],
)
def test_members_that_are_no_fields_of_samples(tmp_path: Path, name: str) -> None:
    path = odd_tar(tmp_path / "a.tar", ("good.json", b"{}"), (name, b"x"))
    for reads in (read_back, TarReader):
        with pytest.raises(StageError, match="is not a sample's field") as error:
            reads(path)
        assert repr(name) in str(error.value)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_members_that_are_no_files(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        info = tarfile.TarInfo("key.json")
        info.type, info.linkname = kind, "/etc/passwd"
        file.addfile(info)
    with pytest.raises(StageError, match="is not a sample's field"):
        read_back(tmp_path / "a.tar")


def test_a_field_twice(tmp_path: Path) -> None:
    path = odd_tar(tmp_path / "a.tar", ("k.json", b"1"), ("k.png", b"2"), ("k.json", b"3"))
    with pytest.raises(StageError, match=r"k\.json stands in it twice"):
        read_back(path)


def test_a_row_twice(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="an image_id stands in it twice"):
        read_back(parquet(tmp_path / "a.parquet", [*ROWS, ROWS[0]]))


@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.99])
def test_a_cut_parquet(tmp_path: Path, part: float) -> None:
    path = parquet(tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(StageError, match="not readable as a parquet"):
        read_back(path)


@pytest.mark.parametrize("suffix", [".tar", ".parquet"])
def test_a_shard_that_is_something_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    for content in (b"", b"text", random.Random(0).randbytes(4096)):
        path.write_bytes(content)
        with pytest.raises(StageError, match="not readable"):
            read_back(path)
    path.unlink()
    with pytest.raises(StageError, match="not readable"):
        read_back(path)


def test_headers_say_where_the_bytes_lie(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar")
    data = path.read_bytes()
    for key, field, info in tar_members(path):
        [sample] = [sample for sample in SAMPLES if sample["__key__"] == key]
        assert data[info.offset_data : info.offset_data + info.size] == sample[field]
