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
from sare_core.engine.manifest import Index, read_index
from sare_core.errors import ConfigError, StageError
from sare_core.evaluation.paper import PAPER_TABLES
from sare_core.evaluation.results import read_outputs
from sare_core.graph import Graph
from sare_core.study import publish, rows
from sare_core.study.dataset import Study
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
    stale = [forged.out / f"table-6{end}" for end in ("-differences.csv", ".png")]
    for path in [*stale, kept := forged.out / "table-6c.csv"]:
        path.parent.mkdir(exist_ok=True)
        path.write_text("of another call")
    done = forged.sare("tables", "6", "--row", "usual=", "--row", f"no map={ZERO}")
    assert done.exit_code == 1, "the backbone's row is missing"
    assert not any(path.exists() for path in stale) and kept.exists(), "what belongs to the table is of one call"
    text = (forged.out / "table-6.md").read_text()
    assert "Missing: DRCT." in text and "No differences: DRCT," in text and "## Less" not in text
    assert text.startswith("## tree, preset mini: guidance scale w; sare\n")
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
    words = (
        captions.filter(label=0, subset="biggan")["caption"]
        .str.split(" ")
        .list.eval(pl.element() != "")
        .list.sum()
        .mean()
    )
    assert premise["words_real"] == pytest.approx(words)

    assert "## Can the maps tell real from fake?" in text and "(paper)" not in text
    assert (forged.out / "table-6.tex").read_text().isascii()

    assert forged.sare("figures", "8", "--row", "usual=", "--row", f"no map={ZERO}").exit_code == 0
    assert forged.csv("figure-8-differences")["detector"].unique().to_list() == ["no map"]
    text = (forged.out / "figure-8.md").read_text()
    assert "## Less usual" in text and "**" in text and "Missing" not in text


def test_rows_that_are_one_run_are_told_and_not_compared(forged: Forged, jobs: list[Job]) -> None:
    again = f"again=reconstruct.strength={forged.pipeline.settings.reconstruct.strength}"
    done = forged.sare("figures", "8", "7", "--make-runs", "--row", "usual=", "--row", again)
    assert done.exit_code == 1 and "again: the same run as usual" in str(done.exception)
    assert "--make-runs" not in str(done.exception), "nothing makes them"
    for number in (7, 8):
        text = (forged.out / f"figure-{number}.md").read_text()
        assert "Missing: again (the same run as usual)." in text and "gain" not in text.replace("again", "")
    image = ["--set", "detector.detector=image"]  # which sees no map
    forged.sare("tables", "6", "--make-runs", *image)
    assert [job.name.split()[0] for job in jobs].count("train") == 2, "DRCT, and one for all scales"


def test_no_difference_where_the_row_that_it_would_be_to_is_missing(forged: Forged) -> None:
    silent = "silent=caption.captioner=none caption.model=null"
    for others, gain in ((["label="], True), (["beams=caption.num_beams=3", "label="], False)):
        done = forged.sare("figures", "4", *(word for row in [*others, silent] for word in ("--row", row)))
        assert done.exit_code == (not gain)
        assert ("gain" in forged.csv("figure-4b")["captions"].to_list()) == gain
        assert ("paired" in (forged.out / "figure-4.md").read_text()) == gain
    assert "Missing: beams." in (forged.out / "figure-4.md").read_text()


def test_what_cannot_be_made_stops_nothing_else(forged: Forged, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise StageError("boom")

    monkeypatch.setattr(publish, "_shift", fail)
    (forged.out / "figure-9.csv").unlink(missing_ok=True)
    monkeypatch.setattr(rows, "run_jobs", fail)
    done = forged.sare("figures", "4", "9", "--make-runs")
    said = str(done.exception).splitlines()
    assert done.exit_code == 1 and said[:3] == ["boom", "figure 4: boom", said[2]] and "missing: 1" in said[2]
    assert forged.csv("figure-9")["row"].unique().to_list() == ["blip"]


def test_a_place_that_cannot_be_written_is_told_before_work(forged: Forged, jobs: list[Job], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = forged.sare("figures", "9", "--make-runs", "--row", "a=caption.num_beams=4", "--out", f"{tmp_path}/file")
    assert isinstance(done.exception, ConfigError) and f"{tmp_path}/file" in str(done.exception) and not jobs


@pytest.mark.parametrize(("labels", "fit"), [(None, []), (1, [5, 6, 8])])
def test_unlabelled_images_fill_nothing(
    forged: Forged, jobs: list[Job], monkeypatch: pytest.MonkeyPatch, labels: int | None, fit: list[int]
) -> None:
    frame = forged.index.frame().with_columns(label=pl.lit(labels, pl.Int8))
    monkeypatch.setattr(Index, "frame", lambda _: frame)
    study = Study("tree", "mini", forged.overrides, forged.pipeline.work, forged.pipeline.manifests, 1, forged.index)
    assert [each.number for each in (*TABLES[4:], *FIGURES) if not publish.unfit(study, each)] == fit
    done = forged.sare("figures", "4", "5", "--make-runs", "--row", "a=caption.num_beams=5")
    assert (done.exit_code == 1 and "real and fake" in str(done.exception)) or "no labelled" in str(done.exception)
    assert not jobs and "sare caption" not in str(done.exception), "no work would help"


def test_what_several_rows_lack_names_them_all(forged: Forged) -> None:
    job = Job("train", ["python", "-m", "stages.train"])
    settings = forged.pipeline.settings
    lacking = [rows.Open("train", "it", job, None), rows.Open("caption", "more", job, 1000)]
    found = [rows.Found("a", settings, missing=lacking), rows.Found("b", settings, missing=lacking[:1])]
    found += [rows.Found(name, settings, problem="no such model.") for name in "cd"]
    assert rows.lines_of_missing(found) == ["a, b: sare train", "a: 1,000 images, sare train", "c, d: no such model."]


def test_the_papers_rows_stand_beside_genimage_alone(forged: Forged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "is_release", lambda *_: True)
    forged.sare("tables", "6", "--row", "usual=")
    text = (forged.out / "table-6.md").read_text()
    assert "SARE, w = 7.5 (paper) | 93.17 | 98.15 | – | – |" in text
    assert "**" not in text and "Best" not in text, "of one row none is the best"


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
    for more in (["--row", "own=train.seed=3"], ["--row", "usual=", "--set", "train.seed=3"]):
        done = forged.sare("figures", "8", "--seeds", "2", *more)
        assert isinstance(done.exception, ConfigError) and "--seeds 2 sets train.seed" in str(done.exception)


def test_a_row_whose_settings_are_none_is_named(forged: Forged) -> None:
    done = forged.sare("tables", "6", "--row", "usual=", "--row", "{odd}=reconstruct.strenth=1")
    assert "row {odd}: reconstruct.strenth=1: no setting" in str(done.exception)


def test_the_backbone_is_the_detector_that_sare_starts_from(forged: Forged) -> None:
    drct = forged.under("detector.detector=drct")
    detector = train_detector(drct, forged.index)
    done = forged.sare("tables", "6", "--set", f"detector.start_from={detector.fingerprint}")
    assert f"--detector {detector.fingerprint}" in str(done.exception)
    predict(drct, forged.index, detector)
    done = forged.sare("tables", "6", "--set", f"detector.start_from={detector.fingerprint}")
    assert forged.csv("table-6")["row"].unique().to_list() == ["DRCT"]
    assert "rows that are missing: 3" in str(done.exception)
    other = train_detector(forged.under("detector.detector=map"), forged.index)
    done = forged.sare("tables", "6", "--set", f"detector.start_from={other.fingerprint}")
    assert "\n  map: 72 images, sare evaluate" in str(done.exception) and "DRCT" not in str(done.exception)


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
        (["tables", "7", "--dataset", "tree"], "table 7: the paper has none. There are tables 1 to 6."),
        (["figures", "3", "--dataset", "tree"], "figure 3: it explains the method. There are figures 4 to 12."),
        (["tables", "2", "--dataset", "tree"], "table 2: `sare compare --dataset NAME` fills"),
        (["tables", "6"], "--dataset NAME"),
        (["tables", "6", "--row", "w"], "write it as NAME"),
        (["tables", "6", "--row", "a='x"], "No closing quotation"),
        (["tables", "6", "--row", "a=", "--row", "a=seed=1"], "--row a: two rows of table 6"),
        (["tables", "6", "--row", "DRCT="], "--row DRCT: two rows of table 6"),
        (["figures", "4", "--row", "gain="], "calls a difference so"),
        (["tables", "--row", "a="], "name the tables"),
    ],
)
def test_refusals(arguments: list[str], told: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1 and told in str(done.exception)
