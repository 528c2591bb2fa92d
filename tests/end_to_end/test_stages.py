"""Real files of the GenImage layout, good and bad, through all stages: what lies there afterwards, and what it says."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import webdataset
from PIL import Image

from sare_core.config import Settings
from sare_core.engine.audit import IntegrityError, folders, integrity_errors, summarize
from sare_core.engine.checkpoints import read_checkpoint
from sare_core.engine.folders import Folder
from sare_core.engine.garbage import orphaned_files
from sare_core.engine.manifest import read_index
from sare_core.errors import ConfigError, StageError
from sare_core.evaluation.results import write_tables
from sare_core.graph import Graph
from sare_core.images.decoding import decode, fit_size, resize
from tests.pipeline import Pipeline
from tests.trees import genimage_tree, nasty_files

SMALL = [
    "reconstruct.longer_side=48",
    "reconstruct.steps=4",
    "train.epochs=1",
    "train.batch_size=8",
    "train.micro_batch_size=8",
]


@pytest.fixture(scope="module")
def nasty() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, nasty: dict[str, str]) -> Path:
    root = genimage_tree(tmp_path_factory.mktemp("tree"), per_cell=8, subsets=["sdv1.4", "adm"])
    nasty |= nasty_files(root / "ADM" / "imagenet_ai_0508_adm" / "val" / "nature")
    return root


@pytest.fixture(scope="module")
def done(tree: Path, tmp_path_factory: pytest.TempPathFactory, standin_models: Path) -> Pipeline:
    """All stages over the tree, once for all tests of this file: none of them may change it."""
    from sare_core.config import load_settings
    from tests.conftest import STANDIN, standin_overrides

    work = tmp_path_factory.mktemp("work")
    settings = load_settings(STANDIN, [*standin_overrides(standin_models), *SMALL])
    pipeline = Pipeline(settings, str(work / "manifests"), str(work / "work"))
    index = pipeline.index(tree)
    used = index.select(["test"])["shard"].to_list()
    used += index.select(["train", "val"], ["sdv1.4"])["shard"].to_list()
    assert pipeline.captions(sorted(used)).complete
    assert pipeline.reconstructions(sorted(used)).complete
    assert pipeline.predictions(pipeline.detector()).complete
    return pipeline


def copied(tree: Path, tmp_path: Path, standin_settings: Callable[..., Settings]) -> tuple[Pipeline, Path]:
    """A pipeline with nothing done, and a copy of one subset that a test may change."""
    root = tmp_path / "tree"
    shutil.copytree(tree / "stable_diffusion_v_1_4", root / "stable_diffusion_v_1_4")
    return Pipeline(standin_settings(*SMALL), str(tmp_path / "manifests"), str(tmp_path / "work")), root


def only(pipeline: Pipeline, stage: str) -> Folder:
    (folder,) = [folder for folder in folders(pipeline.work) if folder.stage == stage]
    return folder


def read_samples(folder: Folder) -> dict[str, dict[str, Any]]:
    """All samples of a folder, as webdataset's own reader gives them."""
    urls = [str(folder.store.local(record.output.name)) for record in folder.records().values() if record.output]
    found = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    samples = {f"{sample['__url__']} {sample['__key__']}": sample for sample in found}
    assert len(samples) == len(found)
    return {sample["__key__"]: sample for sample in found}


def scored(pipeline: Pipeline) -> pl.DataFrame:
    folder = only(pipeline, "predictions")
    parts = [pl.read_parquet(folder.store.local(record.output.name)) for record in folder.records().values()]
    return pl.concat(parts).sort("image_id")


def test_every_good_file_gets_a_prediction_and_every_bad_one_an_error(
    done: Pipeline, tree: Path, nasty: dict[str, str]
) -> None:
    index = read_index(done.manifests, "tree")
    frame = index.frame()
    by_name = {
        Path(path).name: (error, image) for path, error, image in frame.select("path", "error", "image_id").rows()
    }
    for name, verdict in nasty.items():
        assert (by_name[name][0] is not None) == (verdict == "error"), name
    predicted = scored(done)
    expected = frame.filter(pl.col("split") == "test", pl.col("error").is_null())
    assert sorted(predicted["image_id"]) == sorted(expected["image_id"])
    assert {by_name[name][1] for name, verdict in nasty.items() if verdict == "ok"} <= set(predicted["image_id"])
    joined = predicted.join(expected, on=["image_id", "subset"])
    assert joined["label"].to_list() == joined["label_right"].to_list()
    np.testing.assert_allclose(predicted["score"], 1 / (1 + np.exp(-predicted["logit"].to_numpy())), rtol=1e-5)


def test_a_sample_is_source_reconstruction_map_and_facts(done: Pipeline, tree: Path) -> None:
    index, folder = read_index(done.manifests, "tree"), only(done, "reconstructions")
    rows = {row["image_id"]: row for row in index.frame().filter(pl.col("shard").is_not_null()).to_dicts()}
    samples = read_samples(folder)
    assert len(samples) > 40
    for key, sample in samples.items():
        row, facts = rows[key], json.loads(sample["json"])
        assert sample[row["extension"]] == (tree / row["path"]).read_bytes(), "the source's bytes are untouched"
        x, _ = decode(sample[row["extension"]], row["path"])
        x = resize(x, fit_size(*x.size, 48, 8, upscale=True), "lanczos")
        reconstruction, sare = (
            np.asarray(Image.open(io.BytesIO(sample[name]))).astype(int) for name in ("reconstruction.png", "sare.png")
        )
        np.testing.assert_array_equal(sare, np.abs(np.asarray(x).astype(int) - reconstruction))
        assert facts["size"] == [sare.shape[1], sare.shape[0]]
        assert max(facts["size"]) == 48
        assert all(side % 8 == 0 for side in facts["size"])
        assert facts["source_size"] == [row["width"], row["height"]]
        assert facts["fp"] == folder.fingerprint
        assert {name: facts[name] for name in ("label", "subset", "split", "path")} == {
            name: row[name] for name in ("label", "subset", "split", "path")
        }
        assert isinstance(facts["caption"], str)


def test_real_and_fake_leave_the_same_kind_of_files(done: Pipeline) -> None:
    """The codec must not tell the class: whatever the source, what is derived from it is PNG without metadata."""
    for sample in read_samples(only(done, "reconstructions")).values():
        for name in ("sare.png", "reconstruction.png"):
            image = Image.open(io.BytesIO(sample[name]))
            assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})


def test_records_say_how_large_the_batches_were(done: Pipeline) -> None:
    full = done.settings.reconstruct.batch_size
    for record in only(done, "reconstructions").records().values():
        most = {record.batches[part] for part in ("encoder", "unet", "decoder")}
        assert len(most) == 1 and 0 < most.pop() <= min(full, record.images)
        assert record.batches["empty_rows"] == 0, "nothing is compiled"


def test_captions_say_how_they_were_made(done: Pipeline) -> None:
    folder = only(done, "captions")
    rows = pl.concat([pl.read_parquet(folder.store.local(r.output.name)) for r in folder.records().values()])
    assert rows.columns == ["image_id", "caption", "captioner", "revision", "n_tokens", "truncated"]
    assert rows["captioner"].unique().to_list() == ["blip"]
    assert rows["revision"].str.starts_with("sha256:").all()
    assert rows["n_tokens"].min() >= 2  # type: ignore[operator]
    assert rows["caption"].n_unique() > 3
    assert rows["truncated"].to_list() == [n > 77 for n in rows["n_tokens"]]


def test_results_do_not_depend_on_shards_order_or_batches(done: Pipeline, tree: Path, tmp_path: Path) -> None:
    other = Pipeline(
        done.settings.model_copy(
            update={
                "caption": done.settings.caption.model_copy(update={"batch_size": 3}),
                "reconstruct": done.settings.reconstruct.model_copy(update={"batch_size": 3}),
            }
        ),
        str(tmp_path / "manifests"),
        str(tmp_path / "work"),
    )
    index = other.index(tree, shard_size=7)
    shards = index.select(["test"])["shard"].to_list()[::-1]
    assert other.captions(shards).complete
    assert other.reconstructions(shards).complete
    before, after = only(done, "reconstructions"), only(other, "reconstructions")
    assert before.fingerprint == after.fingerprint, "batch sizes and shards are no setting of the result"
    first, second = read_samples(before), read_samples(after)
    assert len(second) > 20
    for key, sample in second.items():
        assert json.loads(sample["json"]) == json.loads(first[key]["json"])
        pixels = [np.asarray(Image.open(io.BytesIO(s["reconstruction.png"]))).astype(int) for s in (first[key], sample)]
        assert np.abs(pixels[0] - pixels[1]).max() <= 1


def test_another_setting_is_another_folder_and_says_which(done: Pipeline, tree: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(done.work, work)
    changed = done.settings.model_copy(
        update={"reconstruct": done.settings.reconstruct.model_copy(update={"strength": 0.75})}
    )
    other = Pipeline(changed, done.manifests, str(work))
    shard = read_index(done.manifests, "tree").select(["test"])["shard"].to_list()[:1]
    assert other.captions(shard).before == shard, "the captions are shared"
    assert other.reconstructions(shard).done == shard
    index = read_index(done.manifests, "tree")
    summaries = [summarize(f, index) for f in folders(other.work) if f.stage == "reconstructions"]
    assert len(summaries) == 2
    from sare_core.engine.audit import others_differ

    lines = {line for a in summaries for b in summaries for line in others_differ(a, b)}
    assert lines == {"settings.strength 0.5 → 0.75", "settings.strength 0.75 → 0.5"}


def test_a_view_changes_the_map_and_not_the_noise(done: Pipeline, tmp_path: Path) -> None:
    from sare_core.reconstruction.mapper import generator_for

    viewed = Pipeline(done.settings.model_copy(update={"view": "jpeg:30"}), done.manifests, str(tmp_path / "work"))
    shard = read_index(done.manifests, "tree").select(["test"])["shard"].to_list()[:1]
    viewed.captions(shard)
    viewed.reconstructions(shard)
    before, after = read_samples(only(done, "reconstructions")), read_samples(only(viewed, "reconstructions"))
    assert after
    for key, sample in after.items():
        assert sample["sare.png"] != before[key]["sare.png"]
        assert json.loads(sample["json"])["view"] == "jpeg:30"
    assert torch.equal(torch.randn(4, generator=generator_for(0, "a")), torch.randn(4, generator=generator_for(0, "a")))
    assert generator_for(0, "a").initial_seed() != generator_for(1, "a").initial_seed()


def test_what_is_left_out_by_a_setting_is_left_out_and_read_from_the_root(done: Pipeline, tmp_path: Path) -> None:
    lean = done.settings.reconstruct.model_copy(
        update={"keep_source": False, "keep_reconstruction": False, "sare_size": 32}
    )
    other = Pipeline(done.settings.model_copy(update={"reconstruct": lean}), done.manifests, str(tmp_path / "work"))
    shards = read_index(done.manifests, "tree").select(["test"])["shard"].to_list()
    other.captions(shards)
    other.reconstructions(shards)
    samples = read_samples(only(other, "reconstructions"))
    for sample in samples.values():
        assert {name for name in sample if not name.startswith("__")} == {"json", "sare.png"}
        assert Image.open(io.BytesIO(sample["sare.png"])).size == (32, 32)
    detector = only(done, "detectors")
    assert other.predictions(detector).complete


def test_recoded_sources_have_the_same_pixels_and_give_the_same_scores(done: Pipeline, tmp_path: Path) -> None:
    recoded = done.settings.reconstruct.model_copy(update={"keep_source": "recoded"})
    other = Pipeline(done.settings.model_copy(update={"reconstruct": recoded}), done.manifests, str(tmp_path / "work"))
    shards = read_index(done.manifests, "tree").select(["test"])["shard"].to_list()
    other.captions(shards)
    other.reconstructions(shards)
    originals, changed = read_samples(only(done, "reconstructions")), 0
    for key, sample in read_samples(only(other, "reconstructions")).items():
        before = originals[key]
        different = {field for field in sample.keys() | before.keys() if sample.get(field) != before.get(field)}
        assert different <= {"png", "json", "__url__", "__local_path__"}
        if "png" in different:
            pixels = np.asarray(Image.open(io.BytesIO(sample["png"])))
            assert np.array_equal(pixels, np.asarray(decode(before["png"], key)[0]))
            changed += 1
    assert changed > 2
    assert other.predictions(only(done, "detectors")).complete
    scores = [scored(pipeline) for pipeline in (done, other)]
    assert scores[0].equals(scores[1])


def test_a_rerun_finds_nothing_to_do_and_loads_no_model(done: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    from sare_core.captioning.stage import CaptionStage
    from sare_core.evaluation.predict import PredictStage
    from sare_core.reconstruction.stage import ReconstructStage

    def refuse(*_: object) -> None:
        raise AssertionError("a model is loaded although nothing is to be done")

    for stage in (CaptionStage, ReconstructStage, PredictStage):
        monkeypatch.setattr(stage, "load", refuse)
    used = sorted(only(done, "captions").records())
    for outcome in (done.captions(used), done.reconstructions(used), done.predictions(only(done, "detectors"))):
        assert outcome.done == []
        assert outcome.complete


def test_tables_hold_the_subsets_and_the_trivial_detector(done: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    index, detector = read_index(done.manifests, "tree"), only(done, "detectors")
    best = read_checkpoint(detector.store, "best")
    assert best is not None
    folder = done.graph.predictions(best)
    shards = index.select(["test"])["shard"].to_list()
    write_tables(done.settings, index, index, folder, shards, "standin", "first")
    table = folder.store.read("tables.md").decode()
    assert "sare · first" in table
    assert "trivial (format, size, bytes)" in table
    assert "(paper)" not in table, "a few images in GenImage's layout are not GenImage"
    assert "the files give the class away" in table, "JPEG photographs beside PNG fakes must be warned of"
    assert "random weights" in table
    assert "test images have no prediction because they could not be indexed" in table
    assert "random weights" in capsys.readouterr().out
    metrics = pl.read_csv(folder.store.read("metrics.csv"))
    ours = metrics.filter(pl.col("detector") == "sare · first", pl.col("subset") == "adm").row(0, named=True)
    rows = index.frame().filter(pl.col("subset") == "adm", pl.col("split") == "test", pl.col("error").is_null())
    assert (ours["n_real"], ours["n_fake"]) == ((rows["label"] == 0).sum(), (rows["label"] == 1).sum())


def test_verify_finds_each_kind_of_damage(done: Pipeline, tmp_path: Path) -> None:
    index = read_index(done.manifests, "tree")

    def damaged(spoil: Callable[[Path], None]) -> list[IntegrityError]:
        work = tmp_path / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(done.work, work)
        tar = min(work.rglob("*.tar"))
        spoil(tar)
        return [error for folder in folders(str(work)) for error in integrity_errors(folder, index)]

    def flip(tar: Path) -> None:
        data = bytearray(tar.read_bytes())
        data[len(data) // 2] ^= 1
        tar.write_bytes(data)

    def cut_record(tar: Path) -> None:
        record = tar.parent / "records" / f"{tar.name[:5]}.json"
        record.write_bytes(record.read_bytes()[:100])

    def lose_an_image(tar: Path) -> None:
        record = tar.parent / "records" / f"{tar.name[:5]}.json"
        values = json.loads(record.read_text())
        record.write_text(json.dumps(values | {"ok": values["ok"] - 1, "images": values["images"] - 1}))

    assert damaged(lambda tar: None) == []
    for spoil in (flip, cut_record, lose_an_image, Path.unlink, lambda tar: tar.write_bytes(tar.read_bytes()[:-512])):
        assert len(damaged(spoil)) == 1


def test_gc_lists_only_what_no_record_names(done: Pipeline, tmp_path: Path) -> None:
    index, work = read_index(done.manifests, "tree"), tmp_path / "work"
    shutil.copytree(done.work, work)
    assert [name for folder in folders(str(work)) for name in orphaned_files(folder, index, grace=0)] == []
    tar = min(work.rglob("*.tar"))
    shutil.copy(tar, tar.with_name(f"{tar.name[:5]}-0123456789ab.tar"))
    (tar.parent / ".00001-abc.tar.host.1.tmp").touch()
    found = [name for folder in folders(str(work)) for name in orphaned_files(folder, index, grace=0)]
    assert sorted(found) == [".00001-abc.tar.host.1.tmp", f"{tar.name[:5]}-0123456789ab.tar"]


def test_a_changed_image_makes_just_its_shard_stale(
    tree: Path, tmp_path: Path, standin_settings: Callable[..., Settings]
) -> None:
    pipeline, root = copied(tree, tmp_path, standin_settings)
    index = pipeline.index(root, shard_size=5)
    pipeline.captions()
    row = index.rows(1)[2]
    image = Image.new("RGB", (64, 64), (9, 200, 30))
    image.save(root / row["path"])

    changed = pipeline.captions([1])  # not indexed again: the shard was done with what the index says
    assert changed.before == [1]
    after = pipeline.index(root, shard_size=5)
    states = only(pipeline, "captions").states(after.digests)
    assert {shard for shard, state in states.items() if state.kind == "stale"} == {1}
    assert "rows of the index changed" in states[1].why
    new = sorted(set(after.digests) - set(index.digests))
    assert len(new) == 1
    assert only(pipeline, "captions").states(after.digests)[1].waiting is False
    outcome = pipeline.reconstructions([1])
    assert outcome.done == [], "no map is made from captions that are to be made again"
    assert 1 in outcome.waiting
    outcome = pipeline.captions()
    assert outcome.done == [1, *new]


def test_a_file_that_changes_after_the_index_fails_by_name(
    tree: Path, tmp_path: Path, standin_settings: Callable[..., Settings]
) -> None:
    pipeline, root = copied(tree, tmp_path, standin_settings)
    index = pipeline.index(root)
    changed, gone = index.rows(0)[1], index.rows(0)[4]
    Image.new("RGB", (64, 64)).save(root / changed["path"])
    (root / gone["path"]).unlink()
    assert pipeline.captions([0]).failures == 2
    record = only(pipeline, "captions").record(0)
    assert record is not None
    reasons = {failure.path: failure.reason for failure in record.failures}
    assert "changed since it was indexed" in reasons[changed["path"]]
    assert "gone" in reasons[gone["path"]]
    assert record.images == record.ok + 2
    assert pipeline.reconstructions([0]).failures == 2
    assert [error for folder in folders(pipeline.work) for error in integrity_errors(folder, index)] == []


def test_a_shard_whose_images_nearly_all_fail_stops_the_run(
    tree: Path, tmp_path: Path, standin_settings: Callable[..., Settings]
) -> None:
    pipeline, root = copied(tree, tmp_path, standin_settings)
    index = pipeline.index(root)
    shutil.move(root, tmp_path / "moved")
    with pytest.raises(StageError, match=r"(\d) of \1 images failed.*gone.*same command again"):
        pipeline.captions()
    folder = only(pipeline, "captions")
    assert folder.states(index.digests)[0].kind == "failed"
    shutil.move(tmp_path / "moved", root)
    assert pipeline.captions().complete


def test_unlabelled_images_get_scores_and_no_metrics(
    done: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "images"
    root.mkdir()
    rng = np.random.default_rng(1)
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(root / f"{number}.png")
    mine = Pipeline(done.settings, str(tmp_path / "manifests"), done.work, dataset="mine")
    index = mine.index(root, layout="folder")
    mine.captions()
    mine.reconstructions()
    detector = only(done, "detectors")
    assert mine.predictions(detector).complete
    best = read_checkpoint(detector.store, "best")
    assert best is not None
    folder = Graph(mine.settings, "mine", mine.work).predictions(best)
    source = read_index(done.manifests, "tree")
    write_tables(mine.settings, index, source, folder, [0], "standin", "standin")
    assert "No labels" in capsys.readouterr().out
    assert pl.read_parquet(folder.store.local(folder.records()[0].output.name))["score"].is_between(0, 1).all()
    shutil.rmtree(Path(mine.work) / "mine")


def test_training_needs_what_the_stages_before_left(
    tree: Path, tmp_path: Path, standin_settings: Callable[..., Settings]
) -> None:
    pipeline = Pipeline(standin_settings(*SMALL), str(tmp_path / "manifests"), str(tmp_path / "work"))
    index = pipeline.index(tree)
    typo = standin_settings(*SMALL, "train_subsets=[sdv1.4, sdv14]")
    with pytest.raises(ConfigError, match=r"names sdv14, but .* are of adm, sdv1\.4"):
        Graph(typo, "tree", pipeline.work).training_data(index)
    with pytest.raises(StageError, match=r"not reconstructed.*sare reconstruct"):
        pipeline.graph.training_data(index)
    outcome = pipeline.reconstructions([0])
    assert outcome.waiting == {0: "open (waits for captions)"}


def test_tars_hold_no_times_and_no_owners(done: Pipeline) -> None:
    for record in only(done, "reconstructions").records().values():
        with tarfile.open(only(done, "reconstructions").store.local(record.output.name)) as tar:
            assert {member.mtime for member in tar} == {0}
