"""`sare detect` on files that mean harm: they get no verdict, stop nothing, and do nothing in reports and tables."""

import csv
import io
import json
import os
import re
import struct
import zipfile
import zlib
from pathlib import Path

import jsonschema
import pytest
from PIL import Image, PngImagePlugin

from sare_core.detection.calibration import Calibration
from sare_core.detection.results import schema_text
from tests.detection.conftest import Sare, grained
from tests.trees import nasty_files

SCHEMA = json.loads(schema_text())


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def hostile_files(folder: Path) -> set[str]:
    """Beside the nasty files of tests/trees.py; the names of those that are honest images all the same."""
    good = {name for name, state in nasty_files(folder).items() if state == "ok"}
    png = io.BytesIO()
    grained(120).save(png, "PNG")
    bomb = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"x" * 200_000_000))
    (folder / "text-bomb.png").write_bytes(png.getvalue()[:33] + bomb + png.getvalue()[33:])
    (folder / "vector.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    (folder / "vector.png").write_text("<svg/>")
    (folder / "folder.jpg").mkdir()
    (folder / "loop").symlink_to(folder)
    (folder / "self.jpg").symlink_to("self.jpg")
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    Image.new("RGB", (20_000, 3), "red").save(folder / "strip.png")
    (folder / "heif.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("run.sh", "rm -rf /")
    (folder / "polyglot.zip.png").write_bytes(png.getvalue() + archive.getvalue())
    names = {"polyglot.zip.png", "=1+1.png", "-rf.png", "line\nbreak.png", "<img src=x onerror=alert(1)>.png"}
    for number, name in enumerate(sorted(names - {"polyglot.zip.png"})):
        grained(120, number + 1).save(folder / name)
    with open(os.fsencode(folder) + b"/\xff\xfe.png", "wb") as file:  # noqa: PTH123  a name that is no UTF-8
        file.write(png.getvalue())
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "<script>alert(1)</script>=cmd|' /C calc'!A0")
    grained(121, 99).save(folder / "said.png", pnginfo=info)
    return good | names | {"said.png"}


@pytest.fixture
def harmed(sare: Sare, calibration: Calibration, tmp_path: Path) -> tuple[Path, int, set[str]]:
    """What came of hostile files: the folder of outputs, the exit code, and the names of honest ones."""
    good = hostile_files(tmp_path / "hostile")
    out = tmp_path / "out"
    out.mkdir()
    arguments = [x for kind in ("json", "csv", "parquet") for x in (f"--{kind}", out / f"out.{kind}")]
    code, _ = sare("detect", tmp_path / "hostile", *arguments, "--report", out / "case.html", "--checks")
    return out, code, good


def test_hostile_files_get_no_verdict_and_stop_nothing(harmed: tuple[Path, int, set[str]], tmp_path: Path) -> None:
    out, code, good = harmed
    assert code == 1
    found = json.loads((out / "out.json").read_text())
    for each in found:
        jsonschema.validate(each, SCHEMA)
    judged = {Path(each["path"]).name for each in found if each["verdict"] != "no_verdict"}
    assert judged == {name.replace("\n", "\\n") for name in good}
    every = [entry for entry in (tmp_path / "hostile").iterdir() if entry.name not in ("folder.jpg",)]
    assert len(found) == len(every), "each has its row"
    # The strip and the single pixel were read; for all else there is nothing to see.
    assert {each["reasons"][0]["code"] for each in found if each["verdict"] == "no_verdict"} == {
        "unreadable",
        "too_small",
    }


def test_names_and_metadata_do_nothing_in_a_spreadsheet_or_page(harmed: tuple[Path, int, set[str]]) -> None:
    out, _, _ = harmed
    with (out / "out.csv").open(newline="") as file:
        for row in csv.reader(file):
            for cell in row:
                assert not cell.startswith(("=", "+", "@", "\t", "\r"))
                assert not cell.startswith("-") or re.fullmatch(r"-\d+(\.\d+)?(e-\d+)?", cell)
    page = (out / "case.html").read_text()
    assert "&lt;img src=x onerror" in page and "&lt;script&gt;" in page
    assert re.findall(r"<(script|img src=x|b)\b", page) == []
