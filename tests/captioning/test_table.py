import hashlib

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sare_core.captioning import load_captioner
from sare_core.errors import ConfigError

IMAGES = [None] * 3  # never looked at
ROWS = [{"image_id": "aa", "path": "x/1.png"}, {"image_id": "bb", "path": "x/2.png"}, {"image_id": "cc", "path": "ü"}]


def load(settings, table):
    return load_captioner(settings(captioner="table", table=None if table is None else str(table)), None, "cpu")


def test_parquet_by_image_id(tmp_path, settings):
    file = tmp_path / "t.parquet"
    pl.DataFrame({"image_id": ["bb", "aa", "zz"], "caption": ["two dogs", "", "unused"]}).write_parquet(file)
    captioner = load(settings, file)
    assert captioner.caption(IMAGES, ROWS) == ["", "two dogs", None]
    assert captioner.revision == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"


def test_csv_by_path_keeps_text_as_text(tmp_path, settings):
    file = tmp_path / "t.csv"
    file.write_text('path,caption,note\nx/1.png,"a dog, running\nfast",1\nx/2.png,2024,2\nü,größer,3\n')
    assert load(settings, file).caption(IMAGES, ROWS) == ["a dog, running\nfast", "2024", "größer"]


def test_image_id_wins_over_path(tmp_path, settings):
    file = tmp_path / "t.parquet"
    pl.DataFrame({"path": ["x/1.png"], "image_id": ["bb"], "caption": ["a cat"]}).write_parquet(file)
    assert load(settings, file).caption(IMAGES, ROWS) == [None, "a cat", None]


def test_null_and_not_utf8_are_no_captions(tmp_path, settings):
    csv = tmp_path / "t.csv"
    csv.write_bytes(b"image_id,caption\naa,caf\xe9\nbb,\ncc,fine\n")
    assert load(settings, csv).caption(IMAGES, ROWS) == [None, None, "fine"]
    nulls = tmp_path / "n.parquet"
    pl.DataFrame({"image_id": ["aa", "bb"], "caption": [None, "x"]}).write_parquet(nulls)
    assert load(settings, nulls).caption(IMAGES, ROWS) == [None, "x", None]


def test_parquet_whose_text_is_not_utf8_breaks_the_format(tmp_path, settings):
    file = tmp_path / "t.parquet"
    captions = pa.Array.from_buffers(pa.string(), 2, pa.array([b"caf\xe9", b"fine"], pa.binary()).buffers())
    pq.write_table(pa.table({"image_id": ["aa", "bb"], "caption": captions}), file)
    with pytest.raises(ConfigError, match="invalid UTF-8"):
        load(settings, file)


def test_same_caption_twice_is_fine_but_two_captions_are_not(tmp_path, settings):
    file = tmp_path / "t.csv"
    file.write_text("image_id,caption\naa,a dog\naa,a dog\n")
    assert load(settings, file).caption(IMAGES, ROWS)[0] == "a dog"
    file.write_text("image_id,caption\naa,a dog\nbb,x\naa,a cat\n")
    with pytest.raises(ConfigError, match="'aa'"):
        load(settings, file)


@pytest.mark.parametrize("text", ["image_id,text\naa,b\n", "name,caption\naa,b\n"])
def test_missing_column(tmp_path, settings, text):
    file = tmp_path / "t.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match="needs the columns"):
        load(settings, file)


def test_unusable_tables(tmp_path, settings):
    numbers, broken, empty = tmp_path / "n.parquet", tmp_path / "b.parquet", tmp_path / "e.csv"
    pl.DataFrame({"image_id": ["aa"], "caption": [7]}).write_parquet(numbers)
    broken.write_bytes(b"PAR1 no")
    empty.write_bytes(b"")
    (tmp_path / "t.xlsx").touch()
    for table, words in [
        (None, "caption.table"),
        (tmp_path / "gone.csv", "no such file"),
        (tmp_path / "t.xlsx", r"\.parquet or \.csv"),
        (numbers, "column caption is Int64"),
        (broken, "b.parquet"),
        (empty, "e.csv"),
    ]:
        with pytest.raises(ConfigError, match=words):
            load(settings, table)
