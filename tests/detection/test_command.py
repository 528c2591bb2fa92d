"""`sare detect` and `sare calibrate` as commands: inputs, outputs, resuming, exit codes."""

import csv
import io
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import jsonschema
import polars as pl
import pytest
from PIL import Image

from sare_core.detection.calibration import Calibration, Drift
from sare_core.detection.examining import UNCHECKED
from sare_core.detection.outputs import json_lines
from sare_core.detection.results import schema_text
from sare_core.errors import ConfigError
from stages import options
from stages.app import app
from stages.calibrate import calibrate
from stages.detect import IN_FULL
from tests.detection.conftest import Sare, StandIn, grained

SCHEMA = json.loads(schema_text())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five images, of which two are bright enough for likely_ai."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, level in enumerate((200, 60, 70, 210, 80)):
        grained(level, number).save(folder / f"{number}.png")
    return folder


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_published_schema_is_that_of_the_results(sare: Sare) -> None:
    code, told = sare("detect", "--schema")
    assert code == 0
    assert told == schema_text(), "write it anew: Result has changed"
    jsonschema.Draft202012Validator.check_schema(json.loads(told))


def test_every_output_says_the_same(sare: Sare, photos: Path, calibration: Calibration, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"")
    names = {kind: tmp_path / f"out.{kind}" for kind in ("json", "jsonl", "csv", "parquet")}
    pictures = ("--save-pictures", tmp_path / "pictures")
    code, told = sare("detect", photos, *pictures, *(x for k, p in names.items() for x in (f"--{k}", p)))
    assert code == 1 and "1 file could not be read" in told
    found = json.loads(names["json"].read_text())
    for each in found:
        jsonschema.validate(each, SCHEMA)
    assert [each["verdict"] for each in found] == [
        *("likely_ai", "inconclusive", "inconclusive", "likely_ai", "inconclusive", "no_verdict")
    ]
    assert lines(names["jsonl"]) == found
    with names["csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = pl.read_parquet(names["parquet"])
    for key in ("path", "verdict", "sha256", "examined", "caption"):
        expected = [each[key] for each in found]
        assert table[key].to_list() == expected
        assert [row[key] or None for row in rows] == expected
    assert table["logit"].to_list() == [each["logit"] for each in found]
    assert table["ai_false_alarms"][0] == calibration.thresholds.likely_ai.crossed
    for each in found[:-1]:
        assert Image.open(each["pictures"]["reconstruction"]).size == (8, 8)
        assert Path(each["pictures"]["maps"]["sare"]).parent == tmp_path / "pictures"


def test_people_get_words_and_no_percentage(sare: Sare, photos: Path, calibration: Calibration) -> None:
    code, told = sare("detect", *sorted(photos.iterdir()))
    assert code == 0
    assert told.count("LIKELY AI-GENERATED") == 2 and told.count("INCONCLUSIVE") == 3
    assert re.findall(r"\d+(?:\.\d+)? ?%", told.replace("95 % interval", "")) == []
    assert "1 of 40 real photographs of “reals”" in told
    assert "That nothing is found in a file's metadata means nothing" in told
    assert "Its verdict was not checked" not in told, "single files are"


def test_a_verdict_without_checks_says_so(sare: Sare, photos: Path, calibration: Calibration, tmp_path: Path) -> None:
    sare("detect", photos, "--json", tmp_path / "out.json", "--report", tmp_path / "out.html")
    for each in json.loads((tmp_path / "out.json").read_text()):
        assert each["warnings"] == ([UNCHECKED] if each["verdict"] == "likely_ai" else [])
    page = (tmp_path / "out.html").read_text()
    assert "No verdict here was checked" in page[: page.index("<main>")]
    for number in range(IN_FULL):
        grained(60, 50 + number).save(photos / f"more{number}.png")
    told = sare("detect", photos)[1]
    assert "some may not stand it" in told
    assert f"Likely AI-generated:\n  {photos}/0.png\n" in told
    assert "some may not stand it" not in sare("detect", photos, "--checks")[1]


def test_what_a_folder_has_besides_is_told(sare: Sare, photos: Path) -> None:
    shutil.copy(photos / "0.png", photos / "photo.txt")
    assert f"{photos}: 1 .txt files left out: not images by their names." in sare("detect", photos)[1]


def test_what_again_cannot_be_opened_gets_no_second_line(sare: Sare, photos: Path, tmp_path: Path) -> None:
    (photos / "gone.png").symlink_to(tmp_path / "nowhere.png")
    out = tmp_path / "out.jsonl"
    for _ in range(2):
        assert sare("detect", photos, "--jsonl", out)[0] == 1
        assert len(lines(out)) == 6
    shutil.copy(photos / "0.png", tmp_path / "nowhere.png")
    assert sare("detect", photos, "--jsonl", out)[0] == 0
    assert len(lines(out)) == 7


def test_json_on_standard_output_is_alone_there(sare: Sare, photos: Path) -> None:
    code, told = sare("detect", photos / "0.png", "--json", "-")
    (result,) = json.loads(told)
    assert code == 0 and result["verdict"] == "inconclusive"
    assert len(result["encodings"]) == 3 and len(result["draws"]) == 1, "a single file is checked"


def test_an_interrupted_run_goes_on(sare: Sare, stand_in: StandIn, photos: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "out.jsonl", tmp_path / "out.csv"
    sare("detect", photos, "--jsonl", out)
    whole = lines(out)
    text = out.read_text().splitlines(keepends=True)
    out.write_text("".join(text[:3]) + text[3][:50])
    stand_in.batches.clear()
    sare("detect", photos, "--jsonl", out, "--csv", table)
    assert sum(stand_in.batches) == 2, "the one that was cut, and the last"
    without_time = [{**each, "milliseconds": 0} for each in lines(out)]
    assert without_time == [{**each, "milliseconds": 0} for each in whole]
    assert len(table.read_text().splitlines()) == 6, "other outputs hold all"

    stand_in.batches.clear()
    grained(90, 9).save(photos / "1.png")  # another image under the same name
    sare("detect", photos, "--jsonl", out)
    assert sum(stand_in.batches) == 1
    sare("detect", photos, "--jsonl", out, "--draws", 2)
    assert len(lines(out)) == 5 + 1 + 5, "other checks are other answers"
    for option in ("--report", "--save-pictures"):
        assert sare("detect", photos, "--jsonl", out, option, tmp_path / "pictures")[0] == 2
    assert not (tmp_path / "pictures").exists()


def test_a_calibration_makes_earlier_answers_old(
    sare: Sare, stand_in: StandIn, photos: Path, reals: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    sare("detect", photos, "--jsonl", out)
    code, told = sare("calibrate", "--reals", reals, "--fpr", "0.05", "--name", "my camera")
    assert code == 0 and "1 of 40 real photographs of “my camera”" in told
    sare("detect", photos, "--jsonl", out)
    assert [each["verdict"] for each in lines(out)[:5]] == ["inconclusive"] * 5
    assert [each["verdict"] for each in lines(out)[5:]].count("likely_ai") == 2


@pytest.fixture
def refused(sare: Sare, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`refused("detect", …)`: what is said where no model may be loaded."""
    monkeypatch.setattr("sare_core.pipeline.Detector.from_pretrained", lambda *_, **__: pytest.fail("was loaded"))

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as end, options.exit_codes():
            app([*(str(each) for each in arguments), "--detector", "it"])
        assert end.value.code == 2
        return " ".join(capsys.readouterr().err.split())

    return run


def test_no_file_of_others_is_overwritten(refused: Callable[..., str], photos: Path, tmp_path: Path) -> None:
    notes, link, listed = tmp_path / "notes", tmp_path / "link.png", tmp_path / "list.txt"
    listed.write_text(f"{photos / '0.png'}\n")
    link.symlink_to(photos / "1.png")
    foreign = (photos / "0.png").read_bytes(), b"my notes\nof years", b"no line break", b'{"a": 1}', b"\n"
    for content in foreign:
        notes.write_bytes(content)
        assert "is no file of results" in refused("detect", photos / "3.png", "--jsonl", notes)
        assert notes.read_bytes() == content
    notes.write_bytes(b"")
    for kind in ("json", "jsonl", "csv", "parquet", "report"):
        for place in (photos / "1.png", link, photos / ".." / "photos" / "1.png"):
            assert "one of the files to examine" in refused("detect", photos, f"--{kind}", place)
        assert "one of the files to examine" in refused("detect", listed, f"--{kind}", listed)
        assert "folder" in refused("detect", photos, f"--{kind}", tmp_path)
        assert "folder" in refused("detect", photos, f"--{kind}", f"{tmp_path}/new/")
        other = "json" if kind == "csv" else "csv"
        assert "the same place" in refused(
            "detect", photos, f"--{kind}", tmp_path / "o", f"--{other}", f"{tmp_path}/./o"
        )
    assert "the same place" in refused("detect", photos, "--json", "-", "--csv", "-")
    assert "takes a file" in refused("detect", photos, "--jsonl", "-")
    assert "takes a file" in refused("detect", photos, "--report", "-")


def test_a_beginning_of_a_first_result_is_gone_on_with(sare: Sare, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text('{"schema_version":1,"pa')
    assert sare("detect", photos, "--jsonl", out)[0] == 0
    assert len(lines(out)) == 5


def test_inputs_that_are_none_are_refused(refused: Callable[..., str], photos: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "is empty" in refused("detect", photos, "")
    assert "no images" in refused("detect", empty)
    for missing in (tmp_path / "missing", f"{tmp_path}/missing/", f"{photos}/0.png/"):
        assert "no such file or folder" in refused("detect", missing)
    assert "cannot be read" in refused("detect", tmp_path / "missing.txt")
    assert "0.png: is no folder" in refused("detect", photos, "--save-pictures", photos / "0.png")
    assert "--no-checks" in refused("detect", photos, "--no-checks", "--draws", 2)
    assert "--no-checks" in refused("detect", photos, "--no-checks", "--encoding", "raw")


def test_names_of_any_bytes_and_images_of_any_name(
    sare: Sare, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, out = (photos / "0.png").read_bytes(), tmp_path / "out.json"
    (photos / "image.txt").write_bytes(image)
    with open(os.fsencode(photos) + b"/\xff.png", "wb") as file:  # noqa: PTH123  a name that is no UTF-8
        file.write(image)
    stdin = io.TextIOWrapper(io.BytesIO(os.fsencode(photos) + b"/\xff.png\n"), "utf-8", "strict")
    monkeypatch.setattr("sys.stdin", stdin)
    assert sare("detect", "-", photos / "image.txt", "--json", out)[0] == 0
    assert [Path(each["path"]).name for each in json.loads(out.read_text())] == ["\\udcff.png", "image.txt"]
    assert f"  {photos}/\\udcff.png: not read: the name is not valid UTF-8" in sare("detect", photos)[1]


def test_of_many_files_the_first_that_cannot_be_read_are_named(sare: Sare, photos: Path) -> None:
    for number in range(25):
        (photos / f"broken-{number:02}.png").write_bytes(b"")
    code, told = sare("detect", photos)
    assert code == 1 and "25 files could not be read or decoded." in told
    assert "broken-09.png: is empty" in told and "broken-10.png" not in told
    assert told.endswith("  … and 15 more\n")


def test_pillow_does_not_talk_into_the_terminal(sare: Sare, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_000)  # beyond which it warns
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        sare("detect", photos / "0.png")
    assert [each for each in told if issubclass(each.category, Image.DecompressionBombWarning)] == []


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    out = str(tmp_path / "out.jsonl")
    with json_lines(out), pytest.raises(ConfigError, match="another process writes it"), json_lines(out):
        pass


def test_tables_lists_and_standard_input(
    sare: Sare, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, listed, out = photos / "table.csv", photos / "list.txt", tmp_path / "out.json"
    out.write_text("[]")
    table.write_text("filename,target\n0.png,1\n,0\n")
    listed.write_text("# two of them\n1.png\n\nnul\0.png\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{photos / '2.png'}\n".encode())))
    code, _ = sare("detect", table, listed, "-", photos / "3.png", "--json", out)
    found = json.loads(out.read_text())
    assert code == 1
    assert [each["reasons"][0]["code"] == "unreadable" for each in found] == [False, True, False, True, False, False]
    assert [Path(found[n]["path"]).name for n in (0, 2, 4, 5)] == ["0.png", "1.png", "2.png", "3.png"]


def test_calibrate_finds_drift(
    sare: Sare, stand_in: StandIn, reals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sare("calibrate", "--check", reals)[0] == 2, "there is none to check"
    assert sare("calibrate")[0] == 2
    stand_in.batches.clear()
    assert sare("calibrate", "--reals", reals)[0] == 2, "40 cannot promise 0.01"
    assert stand_in.batches == [], "which is said before they are scored"
    assert sare("calibrate", "--reals", reals, "--fpr", "0.05")[0] == 0
    assert sare("calibrate", "--check", reals)[0] == 2, "beside itself nothing differs"
    for number in range(40):
        grained(45 + 1.6 * number, 100 + number).save(reals / f"new{number}.png")
    code, told = sare("calibrate", "--check", reals)
    assert code == 0 and "No difference was noticed" in told
    assert "reals: 40 real photographs (left out: 40 of the calibration itself)" in told
    assert "than was promised" not in told
    with monkeypatch.context() as patched:
        patched.setattr("sare_core.detection.calibration.drift", lambda *_: Drift(40, 0.1, 0.5, 9, (0.1, 0.4), 3))
        code, told = sare("calibrate", "--check", reals)
    assert code == 1 and "No difference was noticed" in told and "at most 3 would" in told
    later = tmp_path / "later"
    later.mkdir()
    for number in range(40):
        grained(150 + number, number).save(later / f"{number}.png")
    shutil.copy(later / "0.png", later / "copy.png")
    Image.new("RGB", (64, 48), "white").save(later / "blank.png")
    (later / "broken.png").write_bytes(b"")
    grained(150).save(later / "0.jpg")
    code, told = sare("calibrate", "--check", later)
    assert code == 1 and "Calibrate anew" in told
    assert "later: 41 real photographs (left out: 1 blank; 1 unreadable; 1 the same pixels as another)" in told
    assert "1 of them have a format, size or JPEG quality that “reals” has not (PNG; longer side 64 to 64" in told
    assert "41 photographs beside the 40" in told
    assert "more of them are called likely AI-generated than was promised" in told


def test_what_calibrate_would_ignore_is_refused(refused: Callable[..., str], reals: Path, tmp_path: Path) -> None:
    for option, value in {"fakes": reals, "fpr": 0.5, "miss-rate": 0.5, "out": tmp_path / "new", "name": "it"}.items():
        assert f"--{option}" in refused("calibrate", "--check", reals, f"--{option}", value)
    assert "--calibration" in refused("calibrate", "--reals", reals, "--calibration", "0" * 12)
    assert "--fakes" in refused("calibrate", "--reals", reals, "--miss-rate", 0.5)
    (tmp_path / "empty").mkdir()
    assert "no images" in refused("calibrate", "--check", tmp_path / "empty")
    (tmp_path / "file").write_bytes(b"")
    assert str(tmp_path / "file") in refused("calibrate", "--reals", reals, "--fpr", 0.1, "--out", tmp_path / "file")


def test_too_few_that_could_be_scored_are_told_with_the_reasons(
    sare: Sare, reals: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(30):
        (reals / f"{number:02}.png").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"reals: 10 real photographs cannot promise .* Left out: 30 unreadable\."):
        calibrate("it", str(reals), fpr=0.05)


def test_a_name_stays_on_its_line(sare: Sare, reals: Path) -> None:
    _, told = sare("calibrate", "--reals", reals, "--fpr", 0.05, "--name", "mine\ncalibration: /elsewhere")
    assert "mine\\ncalibration: /elsewhere: 40 real photographs" in told
