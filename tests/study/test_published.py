"""`sare tables` and `sare figures` on a forged run: what they fill, what they reuse, and what they find missing."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from typer.main import get_command
from typer.testing import CliRunner

from sare_core.config import load_settings
from sare_core.engine.manifest import read_index
from sare_core.evaluation.paper import PAPER_TABLES
from sare_core.evaluation.results import read_outputs
from sare_core.graph import Graph
from sare_core.study import publish, rows
from sare_core.study.jobs import Job
from sare_core.study.measures import read_errors
from sare_core.study.published import FIGURES, TABLES, Kind
from stages.app import app
from tests.pipeline import Pipeline
from tests.report.forged import forge, predict, settings_of, train_detector

SUBSETS = ("midjourney", "sdv1.4", "biggan")
ZERO = "detector.semantic_input=zero"
EVERYTHING = [*TABLES, *FIGURES]


class Forged:
    """sare, and sare on a map of zeros; captions and reconstructions with and without a captioner."""

    def __init__(self, root: Path) -> None:
        self.overrides = settings_of(root / "models")
        self.pipeline = forge(root, self.overrides, SUBSETS, test=12)
        self.index = read_index(self.pipeline.manifests, "tree")
        zero = self.under(ZERO)
        predict(zero, self.index, train_detector(zero, self.index))
        self.out = Path(self.pipeline.work) / "tree" / "paper"

    def under(self, *changes: str) -> Pipeline:
        settings = load_settings("mini", [*self.overrides, *changes], "genimage")
        return Pipeline(settings, self.pipeline.manifests, self.pipeline.work)

    def sare(self, *arguments: str) -> Any:
        where = ["--dataset", "tree", "--work", self.pipeline.work, "--manifests", self.pipeline.manifests]
        sets = [word for setting in self.overrides for word in ("--set", setting)]
        return CliRunner().invoke(app, [*arguments, *where, *sets], env={"COLUMNS": "200"})

    def csv(self, name: str) -> pl.DataFrame:
        return pl.read_csv(self.out / f"{name}.csv")

    @property
    def shards(self) -> list[int]:
        return self.index.select(["test"])["shard"].to_list()


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> Forged:
    return Forged(tmp_path_factory.mktemp("published"))


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """What would have been run."""
    asked: list[Job] = []
    monkeypatch.setattr(rows, "run_jobs", lambda some, *_: asked.extend(some))
    return asked


def test_tables_and_figures_are_the_papers_and_their_settings_are_settings() -> None:
    assert [each.number for each in TABLES] == [1, 2, 3, 4, 5, 6]
    assert [each.number for each in FIGURES] == list(range(4, 13))
    for preset in ("paper", "mini"):
        for each in EVERYTHING:
            settings = [load_settings(preset, list(row.changes), "genimage") for row in each.rows]
            names = [row.name.format(of) for row, of in zip(each.rows, settings, strict=True)]
            assert len(set(names)) == len(names), each
            assert bool(names) == (each.kind is not Kind.compare)


def test_what_the_paper_prints_agrees_with_its_other_tables() -> None:
    for each in TABLES[4:]:
        printed = {name: numbers for name, *numbers in each.paper}
        usual = "SARE, BLIP" if each.number == 5 else "SARE, w = 7.5"
        for ours, theirs in (("DRCT", "DRCT"), (usual, "DRCT + SARE")):
            means = [PAPER_TABLES["genimage", measure].printed_average(theirs) for measure in ("acc", "auc")]
            assert printed[ours] == means


def test_the_row_of_the_presets_own_value_is_the_presets_run(forged: Forged) -> None:
    def fingerprint(*changes: str) -> str:
        settings = load_settings("paper", [*forged.overrides, *changes], "genimage")
        return Graph(settings, "tree", forged.pipeline.work).reconstructions.fingerprint

    for each in (TABLES[5], *(FIGURES[number - 4] for number in (4, 5, 8))):
        of_rows = [fingerprint(*row.changes) for row in each.rows if not row.backbone]
        assert fingerprint() in of_rows and len(set(of_rows)) == len(of_rows), each


def test_the_list_says_what_the_runs_fill(forged: Forged) -> None:
    alone = CliRunner().invoke(app, ["tables"])
    assert alone.exit_code == 0 and "table 6: guidance scale w" in alone.output
    told = forged.sare("figures").output
    lines = [line.strip() for line in told.splitlines() if line.startswith("figure ")]
    found = {int(line.split(":")[0].split()[1]): line for line in lines}
    assert found[4].endswith("2 of 2") and found[5].endswith("1 of 1")
    assert found[8].endswith("1 of 4; not 0.3, 0.5, 0.9")
    assert found[9].endswith("1 of 2; not llava-next")
    assert forged.sare("tables").output.count("sare compare") == 4


def test_the_shift_is_that_of_the_stages_own_maps(forged: Forged) -> None:
    done = forged.sare("figures", "4")
    assert done.exit_code == 0, done.output
    errors = read_errors(forged.pipeline.graph.reconstructions, forged.index, forged.shards)
    for subset in SUBSETS:
        means = dict(errors.filter(subset=subset).group_by("label").agg(pl.col("error").mean()).iter_rows())
        gap = forged.csv("figure-4b").filter(captions="with captions", subset=subset).row(0, named=True)
        assert gap["delta"] == pytest.approx(means[0] - means[1])
        assert gap["low"] < gap["delta"] < gap["high"]
    assert set(forged.csv("figure-4b")["captions"]) == {"with captions", "without captions", "gain"}
    assert all(Image.open(forged.out / f"figure-4{end}.png").width > 800 for end in "ab")
    assert "\\toprule" in (forged.out / "figure-4.tex").read_text()


def test_a_row_of_other_training_subsets_takes_no_other_rows_run(forged: Forged) -> None:
    done = forged.sare("tables", "6", "--row", "usual=", "--row", "others=train_subsets=[biggan]")
    assert done.exit_code == 1
    assert forged.csv("table-6")["row"].unique().to_list() == ["usual"]
    assert "others: " in str(done.exception)


def test_a_table_of_ones_own_rows(forged: Forged) -> None:
    done = forged.sare("tables", "6", "--row", "usual=", "--row", f"no map={ZERO}")
    assert done.exit_code == 1, "the backbone's row is missing"
    table = forged.csv("table-6")
    assert table["row"].unique(maintain_order=True).to_list() == ["usual", "no map"]
    detector = forged.pipeline.graph.trained_detector(forged.index, "mini")
    said = read_outputs(forged.pipeline.graph.predictions(detector.best), forged.shards).filter(subset="biggan")
    area = roc_auc_score(said["label"], said["logit"])
    assert table.filter(row="usual", subset="biggan")["auc"].item() == pytest.approx(area, abs=1e-9)

    premise = forged.csv("table-6-premise").filter(row="usual", subset="biggan").row(0, named=True)
    errors = read_errors(forged.pipeline.graph.reconstructions, forged.index, forged.shards).filter(subset="biggan")
    alone = roc_auc_score(errors["label"], -errors["error"])
    assert premise["auc"] == pytest.approx(alone) and premise["delta_low"] > 0, "forged reals move more"
    captions = read_outputs(forged.pipeline.graph.captions, forged.shards).join(forged.index.frame(), "image_id")
    words = captions.filter(label=0)["caption"].str.split(" ").list.eval(pl.element() != "").list.sum().mean()
    assert premise["words_real"] == pytest.approx(words)

    gaps = forged.csv("table-6-differences")
    assert gaps["detector"].unique().to_list() == ["no map"]
    text = (forged.out / "table-6.md").read_text()
    assert "## Less usual" in text and "## Can the maps tell real from fake?" in text and "(paper)" not in text
    assert "\\bottomrule" in (forged.out / "table-6.tex").read_text()


def test_the_papers_rows_stand_beside_genimage_alone(forged: Forged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "is_release", lambda *_: True)
    forged.sare("tables", "6", "--row", "usual=")
    text = (forged.out / "table-6.md").read_text()
    assert "SARE, w = 7.5 (paper) | 93.17 | 98.15 | – | – |" in text
    assert "**" in text, "best of the rows measured here"


def test_what_is_there_is_not_made_again(forged: Forged, jobs: list[Job]) -> None:
    stages = [p for p in Path(forged.pipeline.work).rglob("*") if p.is_file() and forged.out not in p.parents]
    before = {path: path.stat().st_mtime_ns for path in stages}
    assert forged.sare("figures", "4", "5", "--make-runs").exit_code == 0
    assert jobs == []
    assert forged.sare("figures", "8", "--make-runs", "--row", "map=", "--row", f"no map={ZERO}").exit_code == 0
    assert jobs == []
    assert {"figure-8.png", "figure-8.csv", "figure-8-premise.csv"} <= {path.name for path in forged.out.iterdir()}
    after = {p: p.stat().st_mtime_ns for p in Path(forged.pipeline.work).rglob("*") if p in before}
    assert after == before


def test_missing_rows_are_told_with_their_commands_and_made_once(forged: Forged, jobs: list[Job]) -> None:
    done = forged.sare("tables", "6", "--make-runs")
    assert done.exit_code == 1
    stages = [job.command[2].removeprefix("stages.") for job in jobs]
    assert stages == ["reconstruct"] * 2 + ["train"] * 3 + ["evaluate"] * 3, "captions are there; w = 7.5 too"
    assert "rows that are missing: 3" in str(done.exception)
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for job in jobs:
        assert job.typed in str(done.exception)
        _, name, *options = shlex.split(job.typed)
        commands[name].make_context(name, options)

    jobs.clear()
    forged.sare("figures", "9", "10", "--make-runs", "--row", "usual=", "--row", "beams=caption.num_beams=2")
    assert [job.name.split()[0] for job in jobs] == ["caption", "reconstruct"], "for both figures"
    assert "--shard" in jobs[0].command, "of the test split alone"


def test_a_row_in_several_training_seeds_needs_them_all(forged: Forged) -> None:
    done = forged.sare("figures", "8", "--row", "usual=", "--seeds", "2")
    assert done.exit_code == 1 and "train.seed=1" in str(done.exception)
    assert "train.seed=0" not in str(done.exception), "the preset's own seed is 0"


def test_the_backbone_is_the_detector_that_sare_starts_from(forged: Forged) -> None:
    drct = forged.under("detector.detector=drct")
    detector = train_detector(drct, forged.index)
    done = forged.sare("tables", "6", "--set", f"detector.start_from={detector.fingerprint}")
    assert f"--detector {detector.fingerprint}" in str(done.exception)
    predict(drct, forged.index, detector)
    done = forged.sare("tables", "6", "--set", f"detector.start_from={detector.fingerprint}")
    assert forged.csv("table-6")["row"].unique().to_list() == ["DRCT"]
    assert "rows that are missing: 3" in str(done.exception)


def test_pictures_are_of_pairs_that_agree(forged: Forged) -> None:
    assert forged.sare("figures", "5", "9", "11", "--row", "usual=").exit_code == 0
    real, fake = forged.csv("figure-9"), forged.csv("figure-11")
    assert real["generator"].to_list() == fake["generator"].to_list() == [*SUBSETS, "midjourney"]
    assert real["caption"].to_list() == fake["caption"].to_list() == real["both"].to_list(), "test reals have no class"
    index = dict(forged.index.frame().select("image_id", "label").iter_rows())
    assert {index[name] for name in real["image_id"]} == {0} and {index[name] for name in fake["image_id"]} == {1}
    assert set(forged.csv("figure-5")["kind"]) == {"real", "fake"}
    assert not set(forged.csv("figure-5")["image_id"]) & {*real["image_id"], *fake["image_id"]}
    assert np.asarray(Image.open(forged.out / "figure-9.png").convert("L")).std() > 10, "something is drawn"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["tables", "7", "--dataset", "tree"], "7: there are 1, 2, 3, 4, 5, 6"),
        (["figures", "3", "--dataset", "tree"], "3: there are 4, 5"),
        (["tables", "2", "--dataset", "tree"], "filled by `sare compare"),
        (["tables", "6"], "--dataset NAME"),
        (["tables", "6", "--row", "w"], "write it as NAME"),
        (["tables", "6", "--row", "a='x"], "No closing quotation"),
        (["tables", "6", "--row", "a=", "--row", "a=seed=1"], "two rows have one name"),
    ],
)
def test_refusals(arguments: list[str], told: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1 and told in str(done.exception)
