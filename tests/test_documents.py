"""The files for people: what they point to is there, and what they tell you to type exists."""

import hashlib
import re
import shlex
import tomllib
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name

import polars as pl
import pytest
import yaml
from PIL import Image
from typer.main import get_command

from sare_core.captioning import load_captioner
from sare_core.config import load_settings
from sare_core.detectors import build_detector
from sare_core.detectors.trained import TrainedDetector
from sare_core.evaluation.metrics import WITHOUT_COPIES
from sare_core.reconstruction.mapper import Mapped, Mapper
from sare_core.study.means import READERS
from stages.app import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    lines = re.findall(r"^    (sare .*)$", text, re.MULTILINE) + re.findall(r"`(sare [a-z][^`]*)`", text)
    for line in lines:
        name, *arguments = line.partition("#")[0].split()[1:]
        if name == "COMMAND" or name.startswith("--"):
            continue
        assert name in commands, line
        known = {option for parameter in commands[name].params for option in parameter.opts} | {"--help"}
        assert {word for word in arguments if word.startswith("-")} <= known, line
        for setting in (word for flag, word in pairwise(shlex.split(line, comments=True)) if flag == "--set"):
            load_settings("mini", [setting])


def test_the_plugins_of_the_page_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in ("captioning.CAPTIONERS", "detectors._DETECTORS", "reconstruction._METHODS"):
        monkeypatch.setattr(f"sare_core.{registry}", dict(resolve_name(f"sare_core.{registry}")))
    monkeypatch.syspath_prepend(tmp_path)
    for source in re.findall(r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL):
        (module,) = re.findall(r'^register\(".*?", "(\w+):', source, re.MULTILINE)
        (tmp_path / f"{module}.py").write_text(source)
        import_module(module)
    changes = ["caption.captioner=brightness", "caption.model=null", "reconstruct.method=halving"]
    settings = load_settings("mini", [*changes, "detector.detector=small-map", "detector.width=4"])
    image = Image.new("RGB", (40, 30), "white")

    assert load_captioner(settings.caption, None, "cpu").caption([image], [{}]) == ["a bright picture"]
    mapper = Mapper.load(settings.reconstruct, 0, "", "cpu")
    (mapped,) = mapper.maps([mapper.fit(image)], ["a bright picture"], ["0"])
    assert isinstance(mapped, Mapped) and mapped.reconstruction.min() == 255 and not mapped.sare.any()
    detector = TrainedDetector(settings.detector, {}, build_detector(settings.detector).state_dict())
    assert detector.logits([detector.prepare({"sare": Image.fromarray(mapped.sare)})]).shape == (1,)


def test_the_readme_is_short_and_its_picture_small() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 900
    (picture,) = re.findall(r"!\[.{20,}\]\((\S+)\)", text)
    assert (ROOT / picture).stat().st_size <= 60_000


def test_figures_of_the_readme_stand_in_the_benchmarks() -> None:
    text = (ROOT / "README.md").read_text()
    table = pl.read_csv(ROOT / "benchmarks/miniature/premise.csv").filter(model="sdv1.4")
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    rows = [line for line in lines if len(line) == 4 and line[0] != "images of"]
    assert len(rows) >= 4
    for name, extras, delta, area in (row[:4] for row in rows if row[0] != "photographs"):
        generator, _, world = name.partition(", ")
        wanted = (pl.col("world") == 0, pl.col("guidance") == 1) if world else (pl.col("world") == 0.7,)
        guided = (
            table.filter(pl.col("images") == generator, *wanted).sort("guidance", descending=True).row(0, named=True)
        )
        low, high = (f"{guided[f'delta_share_{end}']:.1f}".replace("-", "−") for end in ("low", "high"))
        assert extras == f"{guided['extras']:.1f}", name
        assert delta == f"{guided['delta_share']:.1f} [{low}, {high}]".replace("-", "−"), name
        assert area == f"{guided['share_auc']:.1f}", name


def of_the_study() -> pl.DataFrame:
    """All numbers of the study's tables, as they are printed: table, what, measure, subset, text."""
    parts = []
    for file in sorted((ROOT / "benchmarks").glob("miniature*/*.csv")):
        table = pl.read_csv(file, comment_prefix="#")
        if {"what", "value", "low", "high"} <= set(table.columns):
            measure = pl.col("measure") if "measure" in table.columns else pl.lit("auc")
            scale = pl.when(measure.str.starts_with("delta")).then(1.0).otherwise(100.0)
            ends = ("value", "low", "high")
            numbers = [(pl.col(end) * scale).map_elements(lambda x: f"{x:.1f}", pl.String) for end in ends]
            text = pl.format("{} [{}, {}]", *numbers).str.replace_all("-", "−")
            name = pl.lit(f"{file.parent.name}/{file.stem}")
            parts.append(table.select("what", "subset", table=name, measure=measure, text=text))
    return pl.concat(parts)


def test_detectors_of_the_readme_stand_in_the_study() -> None:
    text, numbers = (ROOT / "README.md").read_text(), of_the_study()
    chosen = [line for line in text.splitlines() if re.match(r"\| (pixel|the image|image and)", line)]
    where = {
        "pixel statistics, a logistic regression": ("miniature/fairness", "pixel statistics, carried over"),
        "the image alone": ("miniature/detectors", "zero"),
        "image and SARE map, as in the paper": ("miniature/detectors", "sare"),
        "image and mean change, of four noise draws": ("miniature/detectors", "number, mean of draws"),
    }
    assert len(chosen) == len(where)
    for name, *cells in (line.strip("| ").split(" | ") for line in chosen):
        table, what = where[name]
        for subset, cell in zip((READERS, WITHOUT_COPIES), cells, strict=True):
            (found,) = numbers.filter(table=table, what=what, subset=subset, measure="auc")["text"]
            assert found == cell, (name, subset)
    gains = re.findall(r"(map|number) does(?: not help the image here)? \(([^)]*)\)", text)
    assert len(gains) == 2
    for what, said in gains:
        name = {"map": "sare − zero", "number": "number, mean of draws − zero"}[what]
        (found,) = numbers.filter(table="miniature/detectors", what=name, subset=READERS, measure="auc")["text"]
        assert found == said.removeprefix("+")


def test_intervals_of_the_studys_page_stand_in_its_tables() -> None:
    page = (ROOT / "docs" / "study.md").read_text()
    part = " ".join(page[page.index("## What came out") : page.index("## The plan")].split())
    said = re.findall(r"([−+]?\d+\.\d \[[−+]?\d+\.\d, [−+]?\d+\.\d\])", part)
    assert len(said) >= 20
    known = set(of_the_study()["text"])
    assert not [text for text in said if text.removeprefix("+") not in known]


def test_tiers_of_the_speed_page_stand_in_their_table() -> None:
    table, page = ((ROOT / name).read_text().splitlines() for name in ("benchmarks/engine/turbo.md", "docs/speed.md"))
    measured = [line.strip("| ").split(" | ") for line in table if line.startswith("| ")]
    names = [row[0] for row in measured]
    tiers = {f"`{name}`": row for name, row in zip(names, measured, strict=True) if "=" in name}
    exact = names.index("exact")
    tiers |= {"exact (10 steps, 7 of them run)": measured[exact], "exact, another noise": measured[exact + 1]}
    said = [line.strip("| ").split(" | ") for line in page if line.startswith("| ") and line.count("|") == 7]
    assert {name for name, *_ in said[1:]} == set(tiers)
    for name, _, moved, correlation, number, head in said[1:]:
        _, _, _, _, delta, _, found, *areas = tiers[name]
        assert float(moved) == float(delta) and float(correlation) == float(found), name
        assert (number, head) == (", ".join(areas[:2]), ", ".join(areas[4:])), name


def test_the_licence_is_the_standard_text_and_named_everywhere() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["license"] == citation["license"] == "Apache-2.0"
    assert all((ROOT / name).is_file() for name in project["license-files"])
    assert project["version"] == citation["version"]
    assert f"Version {project['version']}" in (ROOT / "CHANGELOG.md").read_text()
    paper = citation["preferred-citation"]["title"]
    assert paper.lower() in " ".join((ROOT / "README.md").read_text().split()).lower()
