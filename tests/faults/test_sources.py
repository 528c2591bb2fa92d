"""Source images that change, go, or cannot be read: told by name, never a wrong answer, and `retry-failed` mends."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sare_core.captioning.stage import CaptionStage
from sare_core.config import Settings
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index, read_index
from sare_core.engine.runner import run
from sare_core.errors import StageError
from sare_core.reconstruction.stage import ReconstructStage
from tests.faults.whole import SMALL
from tests.pipeline import QUIET, Pipeline, outputs

COUNT = 200


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 small images, half of them fake."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(COUNT):
        path = root / "train" / ("real" if number % 2 else "fake/noise") / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture
def pipeline(images: Path, tmp_path: Path, standin_settings: Callable[..., Settings]) -> Pipeline:
    settings = standin_settings(*SMALL, "reconstruct.longer_side=16", "caption.max_new_tokens=2")
    pipeline = Pipeline(settings, str(tmp_path / "manifests"), str(tmp_path / "work"))
    pipeline.index(images, layout="folder", shard_size=100)
    return pipeline


def retry(pipeline: Pipeline) -> list[list[int]]:
    """What `sare retry-failed` does; the shards that each stage did."""
    index = read_index(pipeline.manifests, pipeline.dataset)
    stages = (pipeline.graph.caption(index), pipeline.graph.reconstruct(index))
    return [run(stage, index, pipeline.shards(), QUIET, retry=True).done for stage in stages]


def failures(folder: Folder) -> dict[str, str]:
    return {failure.path: failure.reason for record in folder.records().values() for failure in record.failures}


def hidden(images: Path, index: Index, share: float) -> list[Path]:
    """Files of a share of each shard's images, set aside."""
    count = max(int(share * COUNT / len(index.shards)), 1)
    chosen = [images / row["path"] for shard in index.digests for row in index.rows(shard)[3::2][:count]]
    for path in chosen:
        path.rename(path.with_suffix(".away"))
    return chosen


def bring_back(files: list[Path]) -> None:
    for path in files:
        path.with_suffix(".away").rename(path)


def test_images_that_were_away_come_back(pipeline: Pipeline, images: Path, tmp_path: Path) -> None:
    assert pipeline.captions().complete
    assert pipeline.reconstructions().complete
    whole = outputs(pipeline.work)
    index = read_index(pipeline.manifests, pipeline.dataset)

    away = hidden(images, index, 0.01)
    try:
        pipeline.work = str(tmp_path / "again")
        assert pipeline.captions().failures == len(away) == 3
        assert pipeline.reconstructions().failures == 3
        assert {Path(path).stem for path in failures(pipeline.graph.captions)} == {path.stem for path in away}
        assert all("gone" in reason for reason in failures(pipeline.graph.captions).values())
        assert retry(pipeline) == [pipeline.shards(), pipeline.shards()], "tried, in vain"
        assert len(failures(pipeline.graph.captions)) == 3
    finally:
        bring_back(away)
    assert outputs(pipeline.work) != whole
    assert pipeline.captions().done == [], "a plain run does not touch shards that are done"
    assert retry(pipeline) == [pipeline.shards(), pipeline.shards()]
    assert failures(pipeline.graph.captions) == failures(pipeline.graph.reconstructions) == {}
    assert whole.items() <= outputs(pipeline.work).items(), "the bytes of a run in which they never were away"
    assert pipeline.reconstructions().done == retry(pipeline)[0] == []


def test_only_the_failed_images_are_done_again(
    pipeline: Pipeline, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = read_index(pipeline.manifests, pipeline.dataset)
    away = hidden(images, index, 0.01)
    try:
        pipeline.captions()
        pipeline.reconstructions()
    finally:
        bring_back(away)
    read: list[str] = []
    for stage in (CaptionStage, ReconstructStage):
        before = stage.read
        monkeypatch.setattr(stage, "read", lambda self, row, b=before: (read.append(row["path"]), b(self, row))[1])
    retry(pipeline)
    assert sorted(read) == sorted(2 * [str(path.relative_to(images)) for path in away])


def test_a_retry_that_fails_leaves_what_was_done(
    pipeline: Pipeline, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = read_index(pipeline.manifests, pipeline.dataset)
    away = hidden(images, index, 0.01)
    try:
        pipeline.captions()
    finally:
        bring_back(away)
    records, files = pipeline.graph.captions.records(), outputs(pipeline.work)
    monkeypatch.setattr("sare_core.engine.shard.read_back", lambda path: {})
    with pytest.raises(StageError, match=r"3 shards failed one after the other.*does not read back"):
        retry(pipeline)
    assert pipeline.graph.captions.records() == records
    assert outputs(pipeline.work) == files


def test_shards_of_which_all_images_fail_stop_the_run(pipeline: Pipeline, images: Path) -> None:
    away = hidden(images, read_index(pipeline.manifests, pipeline.dataset), 1.0)
    rest = list(images.rglob("*.png"))
    for path in rest:
        path.rename(path.with_suffix(".away"))
    try:
        with pytest.raises(StageError, match=r"(\d+) of \1 images failed, the first with: .*gone.*Mend the cause"):
            pipeline.captions()
        states = pipeline.graph.captions.states(read_index(pipeline.manifests, pipeline.dataset).digests)
        assert [state.kind for state in states.values()] == ["failed"] * 3
    finally:
        bring_back([*away, *rest])
    assert pipeline.captions().complete


def test_a_shard_of_one_image_that_fails_does_not_stop_the_run(
    images: Path, tmp_path: Path, standin_settings: Callable[..., Settings]
) -> None:
    settings = standin_settings(*SMALL, "reconstruct.longer_side=16", "caption.max_new_tokens=2")
    pipeline = Pipeline(settings, str(tmp_path / "manifests"), str(tmp_path / "work"))
    index = pipeline.index(images, layout="folder", shard_size=1)
    shards = pipeline.shards()[:4]
    lost = images / index.rows(shards[1])[0]["path"]
    lost.rename(lost.with_suffix(".away"))
    try:
        outcome = pipeline.captions(shards)
        assert (outcome.done, outcome.failures) == (shards, 1)
        assert pipeline.reconstructions(shards).failures == 1
    finally:
        bring_back([lost])
    assert retry(pipeline) == [[shards[1]], [shards[1]]]
