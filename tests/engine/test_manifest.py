import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from sare_core.engine.manifest import INDEX_SCHEMA, check_name, has_index, index_errors, read_index, write_index
from sare_core.errors import ConfigError
from sare_core.store.storage import Store
from tests.builders import ABOUT, index_frame, index_row

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
    return write_index(str(manifests), "it", index_frame(*(rows or ROWS)), ABOUT).digests


def changed(number: int, **changes: Any) -> list[dict[str, Any]]:
    return [row | changes if place == number else row for place, row in enumerate(ROWS)]


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_what_is_written_is_read(tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SARE_SPOOL", str(tmp_path / "spool"))
    manifests = f"{scheme}{tmp_path}/manifests"
    assert not has_index(manifests, "it")
    about = ABOUT | {"root": "/data/été", "images": 6}
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
    with pytest.raises(ConfigError, match=f"{path.name}: damaged .* or delete index.json there"):
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
    write_index(str(tmp_path), "it", index_frame(), ABOUT)
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


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("about",), None),
        (("about", "root"), None),
        (("about", "dataset"), "../elsewhere"),
        (("rows",), "many"),
        (("images",), "../other/images-0123456789ab.parquet"),
        (("images",), "/images-0123456789ab.parquet"),
        (("shards",), "images-0123456789ab.parquet"),
    ],
)
def test_an_index_that_says_what_it_may_not(tmp_path: Path, path: tuple[str, ...], value: Any) -> None:
    """A value of None: it says nothing."""
    written(tmp_path)
    said = json.loads((tmp_path / "it" / "index.json").read_text())
    *parents, name = path
    place = said
    for parent in parents:
        place = place[parent]
    del place[name]
    if value is not None:
        place[name] = value
    (tmp_path / "it" / "index.json").write_text(json.dumps(said))
    with pytest.raises(ConfigError, match=rf"index\.json: not readable \({'.'.join(path)}: .* delete index.json there"):
        read_index(str(tmp_path), "it")


def flipped_labels(manifests: Path) -> Path:
    """Real for fake in the images, under the name that they had."""
    [path] = (manifests / "it").glob("images-*.parquet")
    pl.read_parquet(path).with_columns(label=1 - pl.col("label")).write_parquet(path)
    return path


def test_rows_that_were_changed_are_not_read(tmp_path: Path) -> None:
    written(tmp_path)
    path = flipped_labels(tmp_path)
    index = read_index(str(tmp_path), "it")
    for read in (index.frame, lambda: index.rows(0)):
        with pytest.raises(ConfigError, match=f"{path.name}: its content is not what its name and digests promise"):
            read()
    assert len(list(index_errors(index))) == 1
    assert path.name in next(index_errors(index))


def test_shards_that_were_changed_are_not_read(tmp_path: Path) -> None:
    written(tmp_path)
    [path] = (tmp_path / "it").glob("shards-*.parquet")
    pl.read_parquet(path).with_columns(digest=pl.lit("0" * 16)).write_parquet(path)
    with pytest.raises(ConfigError, match=f"{path.name}: its content is not what"):
        read_index(str(tmp_path), "it")


@pytest.mark.parametrize("stem", ["images", "shards"])
def test_a_table_that_is_none_is_told(tmp_path: Path, stem: str) -> None:
    """Even one whose name holds its digest."""
    written(tmp_path)
    digest = hashlib.sha256(b"no parquet").hexdigest()[:12]
    (tmp_path / "it" / f"{stem}-{digest}.parquet").write_bytes(b"no parquet")
    said = json.loads((tmp_path / "it" / "index.json").read_text())
    (tmp_path / "it" / "index.json").write_text(json.dumps(said | {stem: f"{stem}-{digest}.parquet"}))
    with pytest.raises(ConfigError, match=f"{stem}-{digest}.parquet: damaged"):
        read_index(str(tmp_path), "it").frame()


def test_a_sound_index_has_no_errors(tmp_path: Path) -> None:
    written(tmp_path)
    assert list(index_errors(read_index(str(tmp_path), "it"))) == []


def test_tables_that_do_not_go_together_are_told(tmp_path: Path) -> None:
    """Each whole by itself, but of two indexes."""
    written(tmp_path / "a")
    written(tmp_path / "b", *changed(4, label=0), index_row(8, 2, subset="glide"))
    said = json.loads((tmp_path / "a" / "it" / "index.json").read_text())
    [images] = (tmp_path / "b" / "it").glob("images-*.parquet")
    shutil.copy(images, tmp_path / "a" / "it")
    (tmp_path / "a" / "it" / "index.json").write_text(json.dumps(said | {"images": images.name}))
    index = read_index(str(tmp_path / "a"), "it")
    rows, listed = index_errors(index)
    assert "index.json: says 7 rows" in rows
    assert f"{index.listed} does not list the shards of {images.name}" in listed
    with pytest.raises(ConfigError, match=images.name):
        index.rows(1)
    assert index.rows(0) == ROWS[:2]


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
