"""A trained detector needs nothing beside its folder: it is copied away, and all that it was trained on is deleted."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

import sare_core
from sare_core.config import load_settings
from sare_core.detectors.folder import open_detector
from sare_core.engine.audit import folders
from sare_core.engine.terminal import PlainConsole
from sare_core.errors import ConfigError, SareError
from stages.caption import caption
from stages.evaluate import evaluate
from stages.ls import ls
from stages.reconstruct import reconstruct
from stages.train import train
from tests.conftest import STANDIN, standin_overrides
from tests.faults.whole import SMALL
from tests.pipeline import Pipeline
from tests.trees import genimage_tree


@pytest.fixture
def trained(tmp_path: Path, standin_models: Path) -> tuple[Pipeline, list[str]]:
    overrides = [*standin_overrides(standin_models), *SMALL]
    pipeline = Pipeline(load_settings(STANDIN, overrides), str(tmp_path / "manifests"), str(tmp_path / "work"))
    pipeline.index(genimage_tree(tmp_path / "tree", per_cell=6, subsets=["sdv1.4"]))
    pipeline.captions(), pipeline.reconstructions(), pipeline.detector()
    return pipeline, overrides


def scores(pipeline: Pipeline, view: str) -> pl.DataFrame:
    """Of the test images, with the settings' own view or another."""
    folder = next(
        folder
        for folder in folders(pipeline.work, "tree")
        if folder.stage == "predictions" and folder.upstream["reconstructions"].made_by["view"] == view
    )
    tables = [pl.read_parquet(folder.output(record)) for record in folder.records().values()]
    return pl.concat(tables).sort("image_id")


def test_a_copy_is_scored_on_two_views_without_its_training_images(
    trained: tuple[Pipeline, list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stages.ls.console", PlainConsole(width=1000))
    pipeline, overrides = trained
    where = {"work": pipeline.work, "manifests": pipeline.manifests}
    evaluate("tree", STANDIN, overrides, **where)
    before = scores(pipeline, "raw")

    (folder,) = (folder for folder in folders(pipeline.work) if folder.stage == "detectors")
    away = tmp_path / "elsewhere" / "mine"
    shutil.copytree(folder.store.url, away)
    shutil.rmtree(folder.store.url)
    reconstructions = folder.upstream["reconstructions"]
    for record in reconstructions.records().values():
        if record.split != "test" and record.output:
            reconstructions.store.delete(record.output.name)
    shutil.rmtree(next(f for f in folders(pipeline.work) if f.stage == "predictions").store.url)

    with pytest.raises(SareError, match="are not reconstructed"):  # without it there is none to be found
        evaluate("tree", STANDIN, overrides, **where)
    evaluate("tree", detector=str(away), **where)
    assert scores(pipeline, "raw").equals(before)

    for stage in (caption, reconstruct):  # of the test split only
        stage("tree", detector=str(away), view="jpeg:70", **where)
    capsys.readouterr()
    evaluate("tree", detector=str(away), view="jpeg:70", **where)
    assert "view jpeg:70" in capsys.readouterr().out
    after = scores(pipeline, "jpeg:70")
    assert after["image_id"].equals(before["image_id"])
    assert not after["logit"].equals(before["logit"])

    ls(work=pipeline.work)
    shown = capsys.readouterr().out
    assert "view jpeg:70" in shown and f"with {away}" in shown


def test_what_its_folder_tells_is_enough_to_know_where_it_came_from(trained: tuple[Pipeline, list[str]]) -> None:
    pipeline, _ = trained
    (folder,) = (folder for folder in folders(pipeline.work) if folder.stage == "detectors")
    about = json.loads((Path(folder.store.url) / "about.json").read_text())
    before = about["upstream"]["reconstructions"]
    assert before["models"]["model"] == pipeline.settings.reconstruct.model
    assert before["upstream"]["captions"]["made_by"] == pipeline.graph.captions.made_by
    assert about["dataset"] == "tree"
    assert open_detector(folder.store.url, pipeline.work).settings() == pipeline.settings
    assert open_detector(folder.fingerprint, pipeline.work).best.sha256[:16]


def test_what_cannot_be_a_detector_is_told(trained: tuple[Pipeline, list[str]], tmp_path: Path) -> None:
    pipeline, overrides = trained
    where = {"work": pipeline.work, "manifests": pipeline.manifests}
    (folder,) = (folder for folder in folders(pipeline.work) if folder.stage == "detectors")
    for detector, said in (
        (str(tmp_path / "nowhere"), "nowhere: holds no trained detector"),
        ("0" * 12, "000000000000: no such detector in"),
        (pipeline.graph.captions.store.url, "holds no trained detector"),
    ):
        with pytest.raises(ConfigError, match=said):
            evaluate("tree", detector=detector, **where)
    with pytest.raises(ConfigError, match="brings its own settings: leave --preset out"):
        evaluate("tree", STANDIN, detector=folder.fingerprint, **where)
    with pytest.raises(ConfigError, match=r"detector\.heads=2: .* is trained already; that would be another one"):
        evaluate("tree", set_=["detector.heads=2"], detector=folder.fingerprint, **where)
    with pytest.raises(ConfigError, match="was trained with other weights of its image_encoder"):
        other = overrides[3].replace("image-encoder", "semantic-encoder")
        evaluate("tree", set_=[other], detector=folder.fingerprint, **where)
    about = Path(folder.store.url) / "about.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "settings": None}))
    with pytest.raises(ConfigError, match=r"trained by sare 0\.1, which kept no settings .* `sare train`"):
        evaluate("tree", detector=folder.fingerprint, **where)


def test_a_detector_in_part_is_refused_also_in_a_copy(trained: tuple[Pipeline, list[str]], tmp_path: Path) -> None:
    pipeline, _ = trained
    (folder,) = (folder for folder in folders(pipeline.work) if folder.stage == "detectors")
    best, last = Path(folder.store.url) / "best.json", Path(folder.store.url) / "last.json"
    whole = json.loads(best.read_text())
    assert whole["finished"] and whole["history"] == json.loads(last.read_text())["history"]

    last.write_text(json.dumps({**json.loads(last.read_text()), "finished": False}))
    best.write_text(json.dumps({**whole, "finished": False}))
    copy = tmp_path / "copy"
    shutil.copytree(folder.store.url, copy)
    (copy / "last.json").unlink()
    for place in (folder.fingerprint, str(copy)):
        with pytest.raises(ConfigError, match="its training has not come to its end"):
            evaluate("tree", detector=place, work=pipeline.work, manifests=pipeline.manifests)
    with pytest.raises(ConfigError, match="its training has not come to its end"):
        sare_core.Detector.from_pretrained(copy)


def test_damaged_provenance_is_told(trained: tuple[Pipeline, list[str]]) -> None:
    pipeline, _ = trained
    (folder,) = (folder for folder in folders(pipeline.work) if folder.stage == "detectors")
    path = Path(folder.store.url) / "about.json"
    about = json.loads(path.read_text())
    made_by = {key: value for key, value in about["made_by"].items() if key != "weights"}
    for broken, said in (
        ({**about, "settings": {"seed": 0}}, "does not describe a detector"),
        ({**about, "made_by": made_by}, "does not describe a detector"),
        ({**about, "upstream": {}}, "does not say what its reconstructions were made by"),
    ):
        path.write_text(json.dumps(broken))
        with pytest.raises(ConfigError, match=said):
            sare_core.Detector.from_pretrained(folder.store.url, work=pipeline.work)


def test_other_maps_are_refused_before_they_are_made(trained: tuple[Pipeline, list[str]]) -> None:
    pipeline, _ = trained
    (folder,) = (folder for folder in folders(pipeline.work) if folder.stage == "detectors")
    where = {"work": pipeline.work, "manifests": pipeline.manifests}
    for stage in (caption, reconstruct, evaluate):
        with pytest.raises(ConfigError, match="was trained on maps made otherwise"):
            stage("tree", set_=["reconstruct.strength=0.25"], detector=folder.fingerprint, **where)
    with pytest.raises(ConfigError, match="was trained on maps made otherwise"):
        sare_core.Detector.from_pretrained(
            folder.fingerprint, work=Path(pipeline.work), overrides=["reconstruct.strength=0.25"]
        )
    with pytest.raises(ConfigError, match="leave one of them out"):
        evaluate("tree", detector=folder.fingerprint, trained_on="tree", **where)


def test_all_maps_of_a_detector_are_made_by_one_command_each(tmp_path: Path, standin_models: Path) -> None:
    overrides = [*standin_overrides(standin_models), *SMALL, "detector.detector=difference"]
    pipeline = Pipeline(load_settings(STANDIN, overrides), str(tmp_path / "manifests"), str(tmp_path / "work"))
    pipeline.index(genimage_tree(tmp_path / "tree", per_cell=6, subsets=["sdv1.4"]))
    where = {"work": pipeline.work, "manifests": pipeline.manifests}
    caption("tree", STANDIN, [*overrides, "reconstruct.model=/no/such/model"], **where)  # captions need none
    reconstruct("tree", STANDIN, overrides, **where)
    train("tree", STANDIN, overrides, **where)
    (folder,) = (folder for folder in folders(pipeline.work) if folder.stage == "detectors")
    for stage in (caption, reconstruct, evaluate):
        stage("tree", detector=folder.fingerprint, view="jpeg:70", **where)
    views = [f.made_by["view"] for f in folders(pipeline.work) if f.stage == "reconstructions"]
    assert sorted(views) == ["jpeg:70", "jpeg:70", "raw", "raw"]


def test_a_detector_is_trained_on_named_reconstructions(trained: tuple[Pipeline, list[str]]) -> None:
    """Those of an ablation, whose settings need not be said again."""
    pipeline, overrides = trained
    where = {"work": pipeline.work, "manifests": pipeline.manifests}
    weak = [*overrides, "reconstruct.strength=0.25", "view=jpeg:80"]
    caption("tree", STANDIN, weak, **where)
    reconstruct("tree", STANDIN, weak, **where)
    maps = Pipeline(load_settings(STANDIN, weak), pipeline.manifests, pipeline.work).graph.reconstructions
    train("tree", STANDIN, overrides, reconstructions=maps.fingerprint, **where)
    found = [folder for folder in folders(pipeline.work) if folder.stage == "detectors"]
    assert [f.upstream["reconstructions"].fingerprint for f in found].count(maps.fingerprint) == 1
    train("tree", STANDIN, weak, **where)
    assert len([folder for folder in folders(pipeline.work) if folder.stage == "detectors"]) == len(found) == 2
    with pytest.raises(ConfigError, match="--reconstructions 000000000000: no such reconstructions of 'tree'"):
        train("tree", STANDIN, overrides, reconstructions="0" * 12, **where)
