"""`sare compare` and `sare evaluate --views` on forged detectors: what they choose, print, write and find missing."""

import io
import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from sare_core.config import load_settings
from sare_core.engine.checkpoints import save_checkpoint
from sare_core.engine.fingerprint import differences
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index, read_index
from sare_core.evaluation.baselines import PIXELS, controls
from sare_core.evaluation.compare import Prediction, _names, _settings, _without_seed, read_predictions, trained_on
from sare_core.evaluation.intervals import Run, measure_runs
from sare_core.evaluation.results import read_outputs
from sare_core.evaluation.tables import TRIVIAL
from sare_core.images.sources import view_image
from sare_core.store.storage import Store
from stages.app import app
from stages.compare import _named
from tests.pipeline import Pipeline
from tests.report.forged import (
    HISTORY,
    ForgedCaptions,
    ForgedPredictions,
    ForgedReconstructions,
    forge,
    predict,
    settings_of,
)

SUBSETS = ("midjourney", "sdv1.4", "biggan")
Sare = Callable[..., Any]


def add(pipeline: Pipeline, overrides: list[str], number: float) -> Folder:
    """One more trained detector; number: its only weight."""
    settings = load_settings("mini", overrides, "genimage")
    graph = Pipeline(settings, pipeline.manifests, pipeline.work).graph
    detector = graph.detector_of(read_index(pipeline.manifests, "tree"))
    detector.describe(preset="mini")
    for name in ("best", "last"):
        facts = {"step": 3, "epoch": 3, "finished": True, "about": detector.made_by}
        history = [entry | {"threshold": 0.25} for entry in HISTORY]
        save_checkpoint(detector.store, name, {"model.x": torch.tensor([number])}, history=history, **facts)
    return detector


class Forged:
    """sare in two seeds, image with its own noise, and map, which has no predictions yet."""

    def __init__(self, root: Path) -> None:
        self.overrides = settings_of(root / "models")
        self.pipeline = forge(root, self.overrides, SUBSETS, test=12, without=False)
        self.index = read_index(self.pipeline.manifests, "tree")
        self.folders = {"sare": self.predictions([], 0.0)}
        self.folders["seed"] = self.predictions(["train.seed=1"], 1.0)
        self.folders["image"] = self.predictions(["detector.detector=image"], 2.0)
        self.map = add(self.pipeline, [*self.overrides, "detector.detector=map"], 3.0)

    def predictions(self, changes: list[str], number: float) -> Folder:
        overrides = [*self.overrides, *changes]
        settings = load_settings("mini", overrides, "genimage")
        own = Pipeline(settings, self.pipeline.manifests, self.pipeline.work)
        detector = add(self.pipeline, overrides, number) if number else own.graph.detector_of(self.index)
        return predict(own, self.index, detector)

    def sare(self, *arguments: str) -> Any:
        where = ["--dataset", "tree", "--work", self.pipeline.work, "--manifests", self.pipeline.manifests]
        return CliRunner().invoke(app, [*arguments, *where], env={"COLUMNS": "200"})

    def file(self, name: str) -> Path:
        return Path(self.pipeline.work) / "tree" / "compare" / name


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> Forged:
    return Forged(tmp_path_factory.mktemp("compare"))


def csv(forged: Forged, name: str = "compare.csv") -> pl.DataFrame:
    return pl.read_csv(forged.file(name))


def test_all_stand_side_by_side_seeds_are_one_row_and_the_hardest_control_is_first(forged: Forged) -> None:
    done = forged.sare("compare")
    assert done.exit_code == 0, done.output
    table = csv(forged)
    names = table["detector"].unique(maintain_order=True).to_list()
    assert set(names) == {TRIVIAL, PIXELS, "sare (2 seeds)", "image"}
    mean = table.filter(pl.col("subset") == "mean of unseen")
    held = dict(mean.filter(pl.col("detector").is_in([TRIVIAL, PIXELS])).select("detector", "auc").iter_rows())
    assert names[0] == max(held, key=lambda name: held[name])
    assert f"hardest to beat is {names[0]}" in " ".join(done.output.split())

    shards = forged.index.select(["test"])["shard"].to_list()
    runs = [Run(read_outputs(forged.folders[name], shards)) for name in ("sare", "seed")]
    expected = measure_runs(runs, ["sdv1.4"]).filter(pl.col("subset") == "biggan")["auc"].item()
    assert table.filter(detector="sare (2 seeds)", subset="biggan")["auc"].item() == pytest.approx(expected, abs=1e-9)
    assert table.filter(detector="image", subset="biggan")["val_acc"].item() is not None, "its threshold is known"
    assert "(paper)" not in done.output, "a few images in GenImage's layout are not GenImage"
    assert r"\begin{tabular}" in forged.file("compare.tex").read_text()
    assert "**" in forged.file("compare.md").read_text()


def test_what_differs_in_more_than_the_seed_is_another_detector() -> None:
    def made(seed: int, **changes: Any) -> Any:
        settings = {"train": {"seed": seed}, "evaluate": {"dtype": "float32"}, "detector": {"detector": "univfd"}}
        made_by = {"settings": {"seed": seed, "epochs": 3}, "inputs": "0", "weights": {"image_encoder": "1"}} | changes
        detector: Any = SimpleNamespace(about=SimpleNamespace(dataset="imported", made_by=made_by))
        return Prediction(Any, detector, settings, "run")  # type: ignore[arg-type]

    keys = [_without_seed(one) for one in (made(0), made(1), made(0, inputs="2"), made(0, weights={}))]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3, "other data or other encoders make another detector"


def test_differences_are_less_the_baseline(forged: Forged) -> None:
    assert forged.sare("compare", "sare", "image", "--baseline", "image").exit_code == 0
    gaps, table = csv(forged, "differences.csv"), csv(forged)
    assert "image" not in gaps["detector"].to_list()
    for subset in ("biggan", "mean of unseen"):
        areas = {name: table.filter(detector=name, subset=subset)["auc"].item() for name in ("sare (2 seeds)", "image")}
        gap = gaps.filter(detector="sare (2 seeds)", metric="auc", subset=subset).row(0, named=True)
        assert gap["value"] == pytest.approx(areas["sare (2 seeds)"] - areas["image"], abs=1e-9)
        assert gap["low"] <= gap["value"] <= gap["high"]
    wide = forged.sare("compare", "sare", "image", "--baseline", "image", "--margin", "100")
    assert "no gain" in wide.output and "undecided" not in wide.output


@pytest.mark.parametrize(
    "name, meant",
    [("a", "a"), ("b", "b (2 seeds)"), ("b_c", "b_c (2 seeds)"), ("tri", TRIVIAL), ("b (2", "b (2 seeds)")],
)
def test_the_baseline_is_a_row_by_its_name_without_its_seeds(name: str, meant: str) -> None:
    assert _named(name, [TRIVIAL, "a", "a · run", "b (2 seeds)", "b_c (2 seeds)"]) == meant


def test_rows_of_one_detector_say_what_they_differ_in_and_leave_others_their_names() -> None:
    def group(detector: str, fingerprint: str, strength: float, seeds: int = 1) -> list[Prediction]:
        settings = {
            "detector": {"detector": detector},
            "reconstruct": {"strength": strength},
            "evaluate": {"dtype": "float32", "near_copies": [fingerprint]},
        }
        folder: Any = SimpleNamespace(fingerprint=fingerprint, made_by={})
        return [Prediction(folder, None, settings | {"train": {"seed": seed}}, "mini") for seed in range(seeds)]

    groups = [group("sare", "1", 0.5, seeds=2), group("image", "2", 0.5), group("sare", "3", 0.7)]
    assert _names(groups) == ["sare · mini · 1 (2 seeds)", "image", "sare · mini · 3"]
    (one, *_), _, (other,) = groups
    assert differences(_settings(one), _settings(other)) == ["reconstruct.strength 0.5 → 0.7"]


def test_a_name_may_be_a_fingerprint_or_a_folder(forged: Forged, tmp_path: Path) -> None:
    folder = forged.folders["seed"]
    detector = Folder.open(forged.pipeline.work, "tree", "predictions", folder.fingerprint).about().detector
    for name in (folder.fingerprint, Path(detector).name, detector):
        assert forged.sare("compare", name).exit_code == 0, name
        assert set(csv(forged)["detector"]) == {TRIVIAL, PIXELS, "sare"}, name


def test_a_detector_of_all_generators_was_trained_on_those_of_its_index(forged: Forged) -> None:
    detector: Any = SimpleNamespace(about=SimpleNamespace(dataset="tree", model_extra=None))
    everything = set(forged.index.select(["train"])["subset"])
    for subsets, expected in ((None, everything), (["biggan"], {"biggan"})):
        source, trained = trained_on(detector, {"train_subsets": subsets}, forged.pipeline.manifests)
        assert (source, set(trained)) == ("tree", expected)


def test_a_work_folder_that_was_moved_knows_its_detectors(
    forged: Forged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [one.detector.store.url for one in read_predictions(forged.pipeline.work, "tree", "raw") if one.detector]
    assert len(before) == 3
    work = tmp_path / "moved"
    shutil.copytree(forged.pipeline.work, work)
    monkeypatch.chdir(tmp_path)
    found = read_predictions("moved", "tree", "raw")
    assert [one.detector.store.url for one in found if one.detector] == [
        place.replace(forged.pipeline.work, "moved") for place in before
    ]
    best = work / "tree" / "detectors" / Path(before[0]).name / "best.json"
    told = json.loads(best.read_text())
    best.write_text(json.dumps(told | {"sha256": told["sha256"][::-1]}))  # trained anew: not what has predicted
    (other,) = (one.detector for one in read_predictions("moved", "tree", "raw")[:1])
    assert other is not None and other.store.url == before[0]


def test_what_is_missing_is_named_with_its_command(forged: Forged) -> None:
    done = forged.sare("compare", "image", "map", "difference", "nothing")
    assert done.exit_code == 1
    lines = [line.strip() for line in done.output.splitlines()]
    assert f"map: sare evaluate --dataset tree --detector {forged.map.fingerprint}" in lines
    assert any(
        line.startswith("difference: sare train --dataset tree --set detector.detector=difference") for line in lines
    )
    assert any(line.startswith("nothing: no run, detector or fingerprint of that name") for line in lines)
    assert "image" in csv(forged)["detector"].to_list(), "what is there is shown"
    refused = forged.sare("compare", "nothing")
    assert refused.exit_code == 1 and "nothing: no run" in str(refused.exception)
    viewed = str(forged.sare("compare", "map", "difference", "--view", "jpeg:60").exception)
    assert f"map: sare evaluate --dataset tree --detector {forged.map.fingerprint} --view jpeg:60\n" in viewed
    assert "sare evaluate --dataset tree --set detector.detector=difference --view jpeg:60 " in viewed
    assert "no step 'jepg'" in str(forged.sare("compare", "--view", "jepg:60").exception)


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    forged: Forged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.compare.controls", None)
    (tmp_path / "file").touch()
    assert "cannot be written" in str(forged.sare("compare", "--out", str(tmp_path / "file")).exception)


def test_pixel_statistics_are_kept_where_they_can_be(
    forged: Forged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert forged.sare("compare").exit_code == 0
    before = csv(forged)

    def refuse(*_: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("sare_core.evaluation.baselines.carried_over", refuse)
    assert forged.sare("compare").exit_code == 0
    assert csv(forged).equals(before)

    frame, shards = forged.index.frame(), forged.index.select(["test"])["shard"].to_list()
    monkeypatch.setattr(Index, "frame", lambda _: frame.with_columns(label=1 - pl.col("label")))
    with pytest.raises(AssertionError, match="computed again"):
        store = Store(str(forged.file("compare.csv").parent))
        controls(forged.index, forged.index, ["sdv1.4"], shards, "raw", store, lambda _: nullcontext(lambda _: None))
    monkeypatch.undo()
    (tmp_path / "file").touch()  # in the place of a folder: a work folder that is for reading alone
    store = Store(str(tmp_path / "file"))
    held, notes = controls(forged.index, forged.index, [], shards, "raw", store, lambda _: nullcontext(lambda _: None))
    assert PIXELS in held and not notes
    monkeypatch.setattr("sare_core.evaluation.statistics.PER_CELL", 3)
    _, notes = controls(forged.index, forged.index, [], shards, "raw", store, lambda _: nullcontext(lambda _: None))
    assert notes[0].startswith(f"{PIXELS}: of {3 * 2 * len(SUBSETS)} test images"), notes


def test_without_the_images_there_are_no_pixel_statistics(forged: Forged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(forged.index.about, "root", "/gone")
    monkeypatch.setattr("stages.compare.read_index", lambda *_: forged.index)
    for kept in forged.file("compare.csv").parent.glob("pixel-*"):
        kept.unlink()
    done = forged.sare("compare")
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "No pixel statistics beside them: /gone/" in said and "is gone" in said
    assert TRIVIAL in csv(forged)["detector"].to_list()


def test_pixel_statistics_look_at_a_view_as_the_detectors_do(
    forged: Forged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They are fitted to the training images as they are."""
    seen = set()

    def look(data: bytes, row: dict[str, Any], view: str) -> Image.Image:
        seen.add((row["split"], view))
        return view_image(data, row, view)

    monkeypatch.setattr("sare_core.evaluation.baselines.view_image", look)
    index = forged.index
    shards = index.select(["test"])["shard"].to_list()
    found, _ = controls(
        index, index, (), shards, "jpeg:60", Store(str(tmp_path)), lambda count: nullcontext(lambda done: None)
    )
    assert PIXELS in found
    assert seen == {("train", "raw"), ("test", "jpeg:60")}


def test_the_near_copies_are_the_users(forged: Forged) -> None:
    assert forged.sare("compare", "--near-copies", "sdv1.4,biggan").exit_code == 0
    table = csv(forged).filter(pl.col("detector") == "image")
    areas = dict(table.select("subset", "auc").iter_rows())
    assert areas["mean of unseen, no near-copies"] == areas["midjourney"]
    assert "near-copies of one another: none." in forged.sare("compare", "--near-copies", "").output


def test_views_ask_for_their_maps_then_make_them_and_draw_curves(
    forged: Forged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sare_core.graph.PredictStage", ForgedPredictions)
    monkeypatch.setattr("sare_core.graph.captioning.CaptionStage", ForgedCaptions)
    monkeypatch.setattr("sare_core.graph.reconstruction.ReconstructStage", ForgedReconstructions)
    sets = [part for override in forged.overrides for part in ("--set", override)]
    command = ["evaluate", "--preset", "mini", *sets, "--views", "jpeg:80..70,square"]
    asked = forged.sare(*command)
    assert asked.exit_code == 1
    said = str(asked.exception)
    assert "3 views are not made (jpeg:80, jpeg:70, square), of 72 test images" in said
    assert "1 view are" in str(forged.sare(*command[:-1], "square").exception)
    assert "sare reconstruct --dataset tree --detector" in said and "--view jpeg:80" in said
    made = forged.sare(*command, "--make-maps")
    assert made.exit_code == 0, made.output
    report = Path(forged.pipeline.work) / "tree" / "report" / forged.folders["sare"].fingerprint
    table = pl.read_csv(io.BytesIO((report / "tables" / "views.csv").read_bytes()))
    assert table["view"].unique(maintain_order=True).to_list() == ["raw", "jpeg:80", "jpeg:70", "square"]
    assert (report / "figures" / "views.png").read_bytes().startswith(b"\x89PNG")
    assert (report / "tables" / "views.md").read_text().count("\n| ") == 6
    assert forged.sare(*command).exit_code == 0, "all is there now"
    for module in ("stages.compare", "sare_core.evaluation.results"):
        monkeypatch.setattr(f"{module}.is_release", lambda *_: True)
    assert "(paper)" in forged.sare("compare").output
    assert "(paper)" not in forged.sare("compare", "--view", "jpeg:80").output, "the paper's images are as they are"
    evaluated = forged.sare("evaluate", "--preset", "mini", *sets, "--view", "jpeg:80").output
    assert "jpeg:80" in evaluated and "The paper's numbers are in" not in evaluated


def test_views_and_a_view_exclude_each_other(forged: Forged) -> None:
    refused = forged.sare("evaluate", "--views", "jpeg:70", "--view", "raw")
    assert refused.exit_code == 1 and "--views goes without --view" in str(refused.exception)
    sets = [part for override in forged.overrides for part in ("--set", override)]
    alone = forged.sare("evaluate", "--preset", "mini", *sets, "--views", "raw")
    assert "names no view but raw" in str(alone.exception)


def test_views_without_both_classes_are_refused_before_the_work(
    forged: Forged, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = forged.index.frame().with_columns(
        label=pl.when(pl.col("split") == "test").then(1).otherwise("label").cast(pl.Int8)
    )
    monkeypatch.setattr(Index, "frame", lambda _: frame)
    sets = [part for override in forged.overrides for part in ("--set", override)]
    refused = forged.sare("evaluate", "--preset", "mini", *sets, "--views", "jpeg:80")
    assert "no generator of 'tree' has both real and fake test images" in str(refused.exception)


def test_metrics_that_are_none_are_named(forged: Forged) -> None:
    refused = forged.sare("evaluate", "--metrics", "auc,f1")
    assert "no metric 'f1'" in str(refused.exception)
