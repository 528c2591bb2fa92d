"""The Python API gives what the stages give: the same captions, maps and scores of the same files."""

import io
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

import sare_core
from sare_core.config import load_settings
from sare_core.detectors.card import LIMITS
from sare_core.engine.manifest import read_index
from sare_core.engine.shardfiles import TarReader
from sare_core.images.decoding import decode
from tests.conftest import STANDIN, standin_overrides
from tests.faults.whole import SMALL
from tests.hub import COMMIT, empty_hub, publish
from tests.pipeline import Pipeline
from tests.trees import genimage_tree


def run(tmp_path: Path, overrides: list[str]) -> Pipeline:
    """A pipeline up to predictions."""
    pipeline = Pipeline(load_settings(STANDIN, overrides), str(tmp_path / "manifests"), str(tmp_path / "work"))
    pipeline.index(genimage_tree(tmp_path / "tree", per_cell=6, subsets=["sdv1.4"]))
    pipeline.captions(), pipeline.reconstructions()
    for graph in pipeline.graph.variants[1:]:
        other = Pipeline(graph.settings, pipeline.manifests, pipeline.work)
        other.captions(), other.reconstructions()
    detector = pipeline.detector()
    assert pipeline.predictions(detector).complete
    return pipeline


def stored(pipeline: Pipeline) -> pl.DataFrame:
    """The predictions, with the path of each image."""
    index = read_index(pipeline.manifests, "tree")
    files = sorted(Path(pipeline.work).glob("tree/predictions/*/0*.parquet"))
    rows = pl.concat([pl.read_parquet(file) for file in files])
    return rows.join(index.frame().select("image_id", "path"), on="image_id")


def opened(pipeline: Pipeline, path: str) -> Image.Image:
    root = read_index(pipeline.manifests, "tree").about["root"]
    return decode((Path(root) / path).read_bytes(), path)[0]


@pytest.mark.parametrize("kind", ["sare", "image", "map", "difference", "difference_in_difference"])
def test_an_image_gets_the_score_that_the_stages_give_it(kind: str, tmp_path: Path, standin_models: Path) -> None:
    overrides = [*standin_overrides(standin_models), *SMALL, f"detector.detector={kind}", "view=jpeg:90"]
    pipeline = run(tmp_path, overrides)
    (folder,) = Path(pipeline.work).glob("tree/detectors/*")
    detector = sare_core.Detector.from_pretrained(str(folder), device="cpu")
    rows = stored(pipeline)
    images = [opened(pipeline, path) for path in rows["path"]]
    np.testing.assert_allclose([each.logit for each in detector.explain(images)], rows["logit"], atol=2e-3)
    results = detector(images)
    scores = [{each["label"]: each["score"] for each in both} for both in results]
    np.testing.assert_allclose([each["fake"] for each in scores], rows["score"], atol=2e-3)
    np.testing.assert_allclose([each["real"] for each in scores], 1 - rows["score"], atol=2e-3)
    assert [both[0]["label"] == "fake" for both in results] == [score["fake"] > 0.5 for score in scores]
    alone = detector.explain(images[0])
    assert alone.logit == pytest.approx(rows["logit"][0], abs=2e-3)


def test_a_method_without_captions_gets_none(tmp_path: Path, standin_models: Path) -> None:
    """As in the stages, whose reconstructions then do not know the captions; and no captioner is needed."""
    overrides = [*standin_overrides(standin_models), *SMALL, "reconstruct.method=autoencoder"]
    pipeline = run(tmp_path, overrides)
    (folder,) = Path(pipeline.work).glob("tree/detectors/*")
    detector = sare_core.Detector.from_pretrained(folder, device="cpu", overrides=["caption.model=/no/such/model"])
    rows = stored(pipeline)
    explained = detector.explain([opened(pipeline, path) for path in rows["path"]])
    assert {each.caption for each in explained} == {""}
    np.testing.assert_allclose([each.logit for each in explained], rows["logit"], atol=2e-3)


def test_captions_and_maps_are_those_of_the_shards(tmp_path: Path, standin_models: Path) -> None:
    overrides = [*standin_overrides(standin_models), *SMALL]
    pipeline = run(tmp_path, overrides)
    (folder,) = Path(pipeline.work).glob("tree/detectors/*")
    detector = sare_core.Detector.from_pretrained(folder.name, work=pipeline.work, device="cpu")
    rows = stored(pipeline)
    explained = detector.explain([opened(pipeline, path) for path in rows["path"]])
    shards = [TarReader(path) for path in Path(pipeline.work).glob("tree/reconstructions/*/*.tar")]
    for key, found in zip(rows["image_id"], explained, strict=True):
        reader = next(shard for shard in shards if key in shard)
        assert found.caption == json.loads(reader.read(key, "json"))["caption"]
        for field, pixels in (("sare.png", found.maps["sare"]), ("reconstruction.png", found.reconstruction)):
            expected = np.asarray(Image.open(io.BytesIO(reader.read(key, field)))).astype(int)
            assert np.abs(expected - pixels).max() <= 1, "one level, for a batch of another size"


def test_what_is_wrong_is_said(tmp_path: Path, standin_models: Path) -> None:
    pipeline = sare_core.Pipeline(load_settings(STANDIN, [*standin_overrides(standin_models), *SMALL]), device="cpu")
    with pytest.raises(ValueError, match="1 images, but 2 captions"):
        pipeline.reconstruct([Image.new("RGB", (64, 64))], ["a", "b"])
    with pytest.raises(sare_core.ConfigError, match="holds no trained detector"):
        sare_core.Detector.from_pretrained(str(tmp_path))
    assert pipeline.caption([]) == pipeline.reconstruct([], []) == []
    with pytest.raises(AttributeError, match="no attribute 'Detektor'"):
        _ = sare_core.Detektor


@pytest.mark.parametrize("device", ["nonsense", "", "cuda:x", "cuda:99", "meta", 99])
def test_a_device_that_is_not_there(device: str | int) -> None:
    with pytest.raises(
        sare_core.ConfigError, match=r"device=.*cannot be used here \(.+\)\. Name another, such as 'cpu'"
    ):
        sare_core.Pipeline(load_settings(STANDIN), device)


def test_overrides_may_be_one() -> None:
    assert sare_core.load_settings("mini", "seed=7") == sare_core.load_settings("mini", iter(["seed=7"]))
    assert sare_core.Pipeline.from_preset("mini", "seed=7", device=torch.device("cpu")).settings.seed == 7
    with pytest.raises(sare_core.ConfigError, match="overrides: 7 is no text"):
        sare_core.load_settings("mini", [7])  # type: ignore[list-item]


class Hub:
    """What `push_to_hub` asks of huggingface_hub.HfApi, with the cache of tests/hub.py as the hub.

    readme: one that lies in the repository already. put: names of the last upload.
    """

    def __init__(self, cache: Path, readme: Path | None = None) -> None:
        self.cache, self.made, self.readme = cache, dict[str, bool | None](), readme

    def file_exists(self, repo_id: str, name: str) -> bool:
        return self.readme is not None

    def hf_hub_download(self, repo_id: str, name: str) -> str:
        assert self.readme and name == "README.md"
        return str(self.readme)

    def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> None:
        assert exist_ok
        self.made[repo_id] = private

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> SimpleNamespace:
        assert repo_id in self.made
        self.put = {path.name for path in Path(folder_path).iterdir()}
        publish(self.cache, repo_id, Path(folder_path))
        return SimpleNamespace(commit_url=f"https://hub.example/{repo_id}/commit/{COMMIT}")


def test_a_detector_is_published_with_a_card_and_scores_as_before(
    tmp_path: Path, standin_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = run(tmp_path, [*standin_overrides(standin_models), *SMALL, "note=A note."])
    (folder,) = Path(pipeline.work).glob("tree/detectors/*")
    detector = sare_core.Detector.from_pretrained(folder, device="cpu")
    images = [opened(pipeline, path) for path in stored(pipeline)["path"][:3]]
    before = detector(images)

    detector.save_pretrained(tmp_path / "saved")
    assert sare_core.Detector.from_pretrained(tmp_path / "saved", device="cpu")(images) == before
    hub = Hub(empty_hub(tmp_path / "hub", monkeypatch))
    assert detector.push_to_hub("owner/name", private=True, api=hub).endswith(COMMIT)
    assert hub.made == {"owner/name": True}
    assert sare_core.Detector.from_pretrained("owner/name", device="cpu")(images) == before

    card = ModelCard.load(tmp_path / "saved" / "README.md")
    entry = detector.folder.best.entry()
    assert [each.metric_value for each in card.data.eval_results] == [
        each for each in (entry["auc"], entry["accuracy"]) if each is not None
    ]
    assert card.data.pipeline_tag == "image-classification"
    for told in (
        *LIMITS,
        "A note.",
        detector.scoring,
        detector.folder.best.sha256,
        "It is not calibrated",
        "tree, all of its",
    ):
        assert told in card.text
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert names == {"README.md", "about.json", "best.json", detector.folder.best.file} == hub.put

    own = tmp_path / "saved" / "README.md"
    monkeypatch.chdir(tmp_path / "saved")
    detector.save_pretrained(".", "another name")  # its own card is written anew
    assert "# another name\n" in own.read_text()
    detector.save_pretrained(".")
    assert "# saved\n" in own.read_text()
    own.write_text(changed := own.read_text().replace("# saved\n", "# Mine\n"))
    with pytest.warns(UserWarning, match="README.md: is not a model card as sare wrote it, and is kept") as said:
        detector.save_pretrained(".")
    assert said[0].filename == __file__ and own.read_text() == changed
    hub = Hub(empty_hub(tmp_path / "other", monkeypatch), own)
    with pytest.warns(UserWarning, match=r"owner/name: README\.md: is not a model card"):
        detector.push_to_hub("owner/name", api=hub)
    assert hub.put == names - {"README.md"}
    for place in ("", "a\0b"):
        with pytest.raises(
            sare_core.ConfigError, match=r"name of the folder is empty|no path contains a null character"
        ):
            detector.save_pretrained(place)
        with pytest.raises(
            sare_core.ConfigError, match=r"name of the folder is empty|no path contains a null character"
        ):
            sare_core.Detector.from_pretrained(place)


def test_paths_labels_and_threads(tmp_path: Path, standin_models: Path) -> None:
    pipeline = run(tmp_path, [*standin_overrides(standin_models), *SMALL])
    (folder,) = Path(pipeline.work).glob("tree/detectors/*")
    detector = sare_core.Detector.from_pretrained(folder, device="cpu")
    paths = [Path(read_index(pipeline.manifests, "tree").about["root"], path) for path in stored(pipeline)["path"]]
    alone = [detector(path) for path in paths]
    assert detector(str(paths[0])) == alone[0]

    both = detector(paths[0])
    assert detector(paths[0], top_k=2) == both
    expected = torch.tensor([0.0, detector.explain(paths[0]).logit]).softmax(0)  # as transformers does
    assert {each["label"]: pytest.approx(each["score"]) for each in both} == dict(
        zip(("real", "fake"), expected.tolist(), strict=True)
    )
    assert both[0]["score"] >= both[1]["score"]
    ((first,), _) = detector(paths[:2], top_k=1)
    assert (first["label"], first["score"]) == (both[0]["label"], pytest.approx(both[0]["score"], abs=1e-4))

    for odd in (0, -1, "2", 1.0):
        with pytest.raises(sare_core.ConfigError, match=r"top_k=.*: give 1 or 2, or leave it out"):
            detector(paths[0], top_k=odd)

    cut = tmp_path / "cut.png"
    cut.write_bytes(paths[0].read_bytes()[:-100])
    no_number = Image.fromarray(np.full((64, 64), np.nan, np.float32))
    for bad, why in (
        (str(cut), f"{cut}: cannot be decoded: "),
        (Image.open(cut), "cannot be decoded: "),
        (no_number, "cannot be decoded: it holds NaN"),
        (Image.new("RGB", (0, 9)), "it has 0x9 pixels"),
        ("a\0b", r"'a\x00b': contains a null character"),
        ("a\ud800", r"'a\ud800': contains half of a surrogate pair"),
        ("/none.png", "/none.png: is gone"),
    ):
        with pytest.raises(sare_core.ImageError, match=f"^{re.escape(why)}"):
            detector(bad)
        with pytest.raises(sare_core.ImageError, match=f"^image 3 of 4: {re.escape(why)}"):
            detector([*paths[:2], bad, paths[0]])
    for method in (detector.explain, detector.pipelines["sare"].caption):
        with pytest.raises(sare_core.ImageError, match=r"^image 2 of 2: cannot be decoded"):
            method([Image.open(paths[0]), Image.open(cut)])
    with pytest.raises(ValueError, match="1 images, but 2 ids"):
        detector.explain([Image.open(paths[0])], ids=["a", "b"])

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(detector, paths)) == alone

    told = list[str]()
    detector.explain([Image.open(paths[0])], tell=told.append)
    assert told == ["captioning", "reconstructing", "scoring"]
