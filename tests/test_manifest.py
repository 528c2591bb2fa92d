from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from sare_core.errors import ConfigError
from sare_core.manifest import INDEX_SCHEMA, check_name, has_index, read_index, write_index
from sare_core.storage import Store
from tests.builders import index_frame, index_row

ROWS = [
    index_row(1, 0, split="train", subset="adm"),
    index_row(2, 0, split="train", subset="adm"),
    index_row(3, 1, subset="adm", duplicates=["pictures/copy.png", "été.png"]),
    index_row(4, 1, subset="adm", label=None),
    index_row(5, 1, subset="adm", quality=96, format="JPEG"),
    index_row(6, 2, subset="glide"),
    index_row(7, None, image_id=None, error="not an image"),
]


def written(manifests: Path, *rows: dict[str, Any]) -> dict[int, str]:
    return write_index(str(manifests), "it", index_frame(*(rows or ROWS)), {"root": "/data"}).digests


def changed(number: int, **changes: Any) -> list[dict[str, Any]]:
    return [row | changes if place == number else row for place, row in enumerate(ROWS)]


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_what_is_written_is_read(tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SARE_SPOOL", str(tmp_path / "spool"))
    manifests = f"{scheme}{tmp_path}/manifests"
    assert not has_index(manifests, "it")
    about = {"dataset": "it", "root": "/data/été", "holdout": 0.1}
    wrote = write_index(manifests, "it", index_frame(*ROWS), about)
    index = read_index(manifests, "it")
    assert has_index(manifests, "it")
    assert index.about == about
    assert index.frame().schema == INDEX_SCHEMA
    assert index.frame().to_dicts() == ROWS
    assert index.digests == wrote.digests
    assert index.shards.drop("digest").to_dicts() == [
        {"shard": 0, "subset": "adm", "split": "train", "images": 2},
        {"shard": 1, "subset": "adm", "split": "test", "images": 3},
        {"shard": 2, "subset": "glide", "split": "test", "images": 1},
    ]


def test_rows_and_selections(tmp_path: Path) -> None:
    written(tmp_path)
    index = read_index(str(tmp_path), "it")
    assert [index.rows(shard) for shard in (0, 1, 2, 3)] == [ROWS[:2], ROWS[2:5], ROWS[5:6], []]
    assert index.select(["test"])["shard"].to_list() == [1, 2]
    assert index.select(["test", "train"], ["adm"])["shard"].to_list() == [0, 1]
    assert index.select(["val"]).is_empty()


def test_a_shard_is_read_without_the_others(tmp_path: Path) -> None:
    written(tmp_path)
    index = read_index(str(tmp_path), "it")
    path = index.store.local(index.images)
    metadata = pq.ParquetFile(path).metadata
    assert metadata.num_row_groups == 4  # three shards and the error rows
    data = bytearray(path.read_bytes())
    for group in (0, 2, 3):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)
    assert index.rows(1) == ROWS[2:5]
    with pytest.raises(pl.exceptions.PolarsError):
        index.rows(0)


@pytest.mark.parametrize(
    "changes",
    [{"label": 0}, {"path": "other.png"}, {"sha256": "f" * 64}, {"class": "cat"}, {"image_id": "0" * 20}],
)
def test_what_makes_a_shard_another(tmp_path: Path, changes: dict[str, Any]) -> None:
    before, after = written(tmp_path), written(tmp_path, *changed(4, **changes))
    assert before[1] != after[1]
    assert (before[0], before[2]) == (after[0], after[2])


@pytest.mark.parametrize("changes", [{"mtime_ns": 5}, {"duplicates": ["x.png"]}])
def test_what_leaves_a_shard_the_same(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert written(tmp_path) == written(tmp_path, *changed(4, **changes))


def test_a_row_more_or_less_makes_a_shard_another(tmp_path: Path) -> None:
    assert written(tmp_path)[1] != written(tmp_path, *ROWS[:4], *ROWS[5:])[1]


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        written(tmp_path / name)
    a, b = ({file.name: file.read_bytes() for file in (tmp_path / name / "it").iterdir()} for name in ("a", "b"))
    assert a == b


def test_what_an_index_replaces_stays_for_those_who_read_it(tmp_path: Path) -> None:
    written(tmp_path)
    old = read_index(str(tmp_path), "it")
    written(tmp_path, *changed(0, label=0))
    assert old.rows(0) == ROWS[:2]
    assert old.frame().to_dicts() == ROWS
    assert read_index(str(tmp_path), "it").rows(0) == changed(0, label=0)[:2]


def test_a_crash_before_the_switch_leaves_the_old_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)
    write = Store.write

    def crash(store: Store, name: str, data: bytes) -> None:
        if name == "index.json":
            raise KeyboardInterrupt
        write(store, name, data)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Store, "write", crash)
        written(tmp_path, *changed(0, label=0))
    assert len(list((tmp_path / "it").iterdir())) == 5
    assert read_index(str(tmp_path), "it").frame().to_dicts() == ROWS
    written(tmp_path, *changed(0, label=0))
    assert read_index(str(tmp_path), "it").frame().to_dicts() == changed(0, label=0)


def test_an_index_without_rows(tmp_path: Path) -> None:
    write_index(str(tmp_path), "it", index_frame(), {})
    index = read_index(str(tmp_path), "it")
    assert (index.digests, len(index.frame()), index.rows(0)) == ({}, 0, [])


def test_a_folder_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    written(tmp_path / "run[1]*")
    index = read_index(str(tmp_path / "run[1]*"), "it")
    assert (len(index.frame()), index.rows(2)) == (7, ROWS[5:6])


def test_no_such_index(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no index of 'other'. Make one: sare index"):
        read_index(str(tmp_path / "manifests"), "other")
    written(tmp_path)
    (tmp_path / "half-made").mkdir()
    with pytest.raises(ConfigError, match=r"no index of 'other'. Indexed here: it. Make one"):
        read_index(str(tmp_path), "other")


@pytest.mark.parametrize("garbage", [b"", b'{"about": {"root": "/d', '{"é'.encode()[:-1], b"\xff\xfe\x00"])
def test_an_unreadable_index(tmp_path: Path, garbage: bytes) -> None:
    written(tmp_path)
    (tmp_path / "it" / "index.json").write_bytes(garbage)
    with pytest.raises(ConfigError, match=r"index\.json: not readable"):
        read_index(str(tmp_path), "it")


@pytest.mark.parametrize("stem", ["images", "shards"])
def test_an_index_without_its_tables(tmp_path: Path, stem: str) -> None:
    written(tmp_path)
    [path] = (tmp_path / "it").glob(f"{stem}-*.parquet")
    path.unlink()
    with pytest.raises(ConfigError, match=f"{path.name}: named by index.json but gone"):
        read_index(str(tmp_path), "it")


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "..", ".hidden", "a b", "été", "a\n"])
def test_names_that_are_no_folder_everywhere(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lower-case letters"):
        read_index(str(tmp_path), name)


def test_good_names() -> None:
    for name in ("genimage", "sdv1.4", "my-set_2", "0"):
        check_name(name)
