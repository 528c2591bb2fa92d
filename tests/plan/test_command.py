"""`sare plan` as its user sees it, against what a pipeline then really leaves."""

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sare_core.config import Settings, load_settings
from sare_core.config.stored import changed
from sare_core.engine.flow import in_batches
from sare_core.engine.manifest import INDEX_SCHEMA, read_index
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError
from sare_core.graph import Graph
from sare_core.plan import disk
from sare_core.plan.estimate import Plan, Row, plan_dataset, plan_images, si
from sare_core.plan.images import count_batches, indexed_images, supposed_images
from sare_core.plan.models import diffusion
from sare_core.plan.show import Resources, print_plan
from sare_core.reconstruction.mapper import Mapper
from stages import plan as command
from tests.conftest import STANDIN, standin_overrides
from tests.pipeline import Pipeline
from tests.trees import genimage_tree

MakeSettings = Callable[..., Settings]


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def test_a_hundred_million_images(capsys: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    command.plan(preset="paper", images=100_000_000, images_per_second=3, gpus=64, price=2.5, tflops=990)
    said, took = capsys.readouterr().out, time.monotonic() - start
    assert max(map(len, said.splitlines())) <= 100
    assert took < 300  # about 5 s; the machine may be slow and busy
    (row,) = [line.split() for line in said.splitlines() if line.startswith("reconstruct ")]
    hours = 1e8 / 3 / 3600
    assert row[1:3] == ["100,000,000", "100,000"]
    assert row[3:7] == ["43.8", "T", "4.38", "Z"]
    assert row[9:] == [f"{hours:,.0f}", f"{hours / 64 / 24:.2f}", f"{2.5 * hours:,.0f}"]
    (caption,) = [line.split() for line in said.splitlines() if line.startswith("caption ")]
    assert caption[-3] == f"≥{1e8 * 132.66e9 / 990e12 / 3600:.2f}"


def test_nothing_is_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    command.plan(preset="mini", images=1000)
    said = capsys.readouterr().out
    title, head, *rest = said.splitlines()
    assert title.strip() == "to do: 1,000 images of 32×32, in shards of 1,000"
    assert head.split()[0] == "stage" and head.split()[-1] == "disk", "no hours, days or cost"
    rows = [line.split() for line in rest if re.match("caption |reconstruct |train |all ", line)]
    assert len(rows) == 4 and all(len(row) <= len(head.split()) + 3 for row in rows), "three figures have units"
    for option in ("--images-per-second", "--tflops", "--gpus", "--price"):
        assert option in said


def test_an_unknown_captioner_and_an_unreachable_model_are_no_crash(capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["caption.captioner=llava-next", "reconstruct.model=nobody/no-such-model"]
    command.plan(preset="mini", images=10, set_=changes)
    said = " ".join(capsys.readouterr().out.split())
    assert "caption: FLOPs not counted: captioner llava-next" in said
    assert "reconstruct: FLOPs not counted: nobody/no-such-model: no such folder" in said


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--dataset NAME .* or --images N"):
        command.plan(preset="mini")
    with pytest.raises(ConfigError, match="as 512x384"):
        command.plan(preset="mini", images=1, size="512")
    with pytest.raises(ConfigError, match="above 0"):
        command.plan(preset="mini", images=1, images_per_second=0)
    with pytest.raises(ConfigError, match="goes with --images"):
        command.plan(preset="mini", dataset="it", size="8x8")


def test_steps_that_the_model_does_not_know_are_no_plan(
    standin_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(standin_models, tmp_path / "models")
    changes = [*standin_overrides(tmp_path / "models"), "reconstruct.sampler=lcm", "reconstruct.steps=40"]
    refused = r"reconstruct\.steps=40: the model knows 25 steps at strength 0\.5 \(original_inference_steps=50\)"
    with pytest.raises(ConfigError, match=refused):
        command.plan(preset=STANDIN, images=9, set_=changes)
    of_model = tmp_path / "models" / "diffusion" / "scheduler" / "scheduler_config.json"
    of_model.write_text(json.dumps(json.loads(of_model.read_text()) | {"original_inference_steps": 100}))
    command.plan(preset=STANDIN, images=9, set_=changes)
    assert "refuse" not in capsys.readouterr().out
    of_model.unlink()
    command.plan(preset=STANDIN, images=9, set_=changes)
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(rf"reconstruct will refuse, unless the model's scheduler says otherwise: {refused}", said)
    with pytest.raises(ConfigError, match="leaves no step"):
        command.plan(preset=STANDIN, images=9, set_=[*changes[:-2], "reconstruct.steps=1"])


def test_a_bound_in_one_stage_makes_the_sum_a_bound(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Row("caption", 3600, 4, flops_per_image=1e12, disk=1),  # one hour at 1 TFLOP/s
        Row("reconstruct", 7200, 8, flops_per_image=1e15, disk=1, rate=1.0),  # two hours
    ]
    assert (rows[0].hours(1.0), rows[0].hours(None), rows[1].hours(1.0)) == ((1, True), None, (2, False))
    print_plan(Plan("it", rows), Resources(tflops=1.0, gpus=2, price=10), console)
    last = next(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("all"))
    assert last[-3:] == ["≥3.00", "≥0.06", "≥30.0"]


def test_prefixes() -> None:
    assert [si(value) for value in (0, 999, 1000, 43.8082e12, 999_600, 1e24)] == [
        "0 ", "999 ", "1.00 k", "43.8 T", "1.00 M", "1.00 Y",
    ]  # fmt: skip


def test_a_plan_foretells_what_a_pipeline_leaves(
    standin_models: Path, standin_settings: MakeSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images, shards and sizes exactly; the rate from records; disk within a factor of two for each stage."""
    settings = standin_settings(
        "reconstruct.steps=2", "train.epochs=1", "train.batch_size=8", "train.micro_batch_size=8"
    )
    pipeline = Pipeline(settings, str(tmp_path / "manifests"), str(tmp_path / "work"))
    index = pipeline.index(genimage_tree(tmp_path / "data", per_cell=12, subsets=["sdv1.4"]))
    changes = [*standin_overrides(standin_models), "reconstruct.steps=2", "train.epochs=1"]
    changes += ["train.batch_size=8", "train.micro_batch_size=8"]

    def planned() -> dict[str, Row]:
        plan = plan_dataset(load_settings(STANDIN, changes), index, pipeline.work, None)
        return {row.stage: row for row in plan.rows}

    rows = planned()
    counts, shards = int(index.shards["images"].sum()), len(index.shards)
    for stage in ("caption", "reconstruct"):
        assert (rows[stage].images, rows[stage].shards) == (counts, shards)
    assert (rows["train"].shards or 0) + (rows["evaluate"].shards or 0) == shards
    assert (rows["train"].images or 0) + (rows["evaluate"].images or 0) == counts
    images = indexed_images(index, settings, index.shards["shard"].to_list(), 8)

    pipeline.captions()
    first = index.shards["shard"][0]
    pipeline.reconstructions([first])
    midway = planned()
    left = (counts - index.shards["images"][0], shards - 1)
    assert midway["caption"].images == 0 and (midway["reconstruct"].images, midway["reconstruct"].shards) == left
    assert midway["reconstruct"].rate is not None and midway["reconstruct"].hours(None) is not None

    pipeline.reconstructions()
    pipeline.predictions(pipeline.detector())
    final = planned()
    assert all((row.images, row.shards, row.disk) == (0, 0, 0) for row in final.values())

    tars = [path.stat().st_size for path in Path(pipeline.work).rglob("*.tar")]
    assert max(tars) / 2 < disk.reconstructions_bytes(settings, images) / images.shards < max(tars) * 2
    folders = {"caption": "captions", "reconstruct": "reconstructions", "train": "detectors", "evaluate": "predictions"}
    for stage, folder in folders.items():
        here = tmp_path / "work" / "tree" / folder
        kinds = {".parquet", ".tar", ".safetensors", ".json"}
        left = sum(p.stat().st_size for p in here.rglob("*") if p.suffix in kinds and p.name != "about.json")
        assert left / 2 < (rows[stage].disk or 0) < left * 2, stage
    capsys.readouterr()
    command.plan(dataset="tree", preset=STANDIN, set_=changes, work=pipeline.work, manifests=pipeline.manifests)
    said = capsys.readouterr().out
    first, head = said.splitlines()[:2]
    assert (first.strip(), head.split()[:3]) == ("to do: tree", ["stage", "images", "shards"])
    assert [line.split()[1:3] for line in said.splitlines() if re.match("caption |reconstruct ", line)] == [
        ["0", "0"]
    ] * 2


@pytest.mark.parametrize("together", [1, 2])
def test_sizes_and_batches_are_those_of_the_stage(
    standin_settings: MakeSettings, tmp_path: Path, together: int
) -> None:
    settings = standin_settings(
        "view=resize:0.5", f"reconstruct.shards_together={together}", "reconstruct.batch_size=4"
    )
    pipeline = Pipeline(settings, str(tmp_path / "manifests"), str(tmp_path / "work"))
    index = pipeline.index(genimage_tree(tmp_path / "data", per_cell=6, subsets=["sdv1.4"]))
    stage = Graph(settings, "tree", pipeline.work).reconstruct(index)
    model: Any = diffusion(settings.reconstruct)  # it is asked for its multiple
    stage.mapper = Mapper(settings.reconstruct, settings.seed, model)
    rows = [row for shard in index.digests for row in index.rows(shard)]
    found = indexed_images(index, settings, list(index.digests), 8)
    assert sorted(found.sizes.elements()) == sorted(stage._size(row) for row in rows)
    assert found.source_bytes == sum(row["bytes"] for row in rows)
    assert found.pixels == sum(w * h for w, h in map(stage._size, rows))
    lots = in_batches(list(index.digests), together)
    assert len(lots) < len(index.digests) or together == 1
    batches = [stage.batches([row for shard in lot for row in index.rows(shard)]) for lot in lots]
    assert found.batches == sum(map(len, batches)) and found.empty_rows == 0
    empty = sum(4 - len(batch) for lot in batches for batch in lot if len(batch) == 3)
    for speed in ("rounding", "quantised"):
        compiled = changed(settings, {"reconstruct.speed": speed})
        assert indexed_images(index, compiled, list(index.digests), 8).empty_rows == empty
    said = plan_dataset(settings, index, pipeline.work, None).lines
    full = len(rows) / (found.batches * settings.reconstruct.batch_size)
    assert any(f"batches of {settings.reconstruct.batch_size} are {full:.0%} full" in line for line in said)
    assert indexed_images(index, settings, [], 8).images == 0


def test_index_rows_take_what_is_said(tmp_path: Path, standin_settings: MakeSettings) -> None:
    index = Pipeline(standin_settings(), str(tmp_path / "m"), str(tmp_path / "w")).index(
        genimage_tree(tmp_path / "data", per_cell=12, subsets=["sdv1.4"])
    )
    assert read_index(str(tmp_path / "m"), "tree").frame().schema == INDEX_SCHEMA
    rows = pl.read_parquet(index.store.local(index.images), glob=False)
    written = Path(index.store.local(index.images)).stat().st_size
    # One row group a shard: so small a shard is mostly its own header.
    assert written > len(rows) * disk.INDEX_ROW / 2
    shipped = Path("manifests/miniature")
    if shipped.is_dir():
        shipped_index = read_index("manifests", "miniature")
        size = Path(shipped_index.store.local(shipped_index.images)).stat().st_size
        assert size / 1.5 < disk.index_bytes(len(shipped_index.frame())) < size * 1.5


def test_supposed_images_are_all_of_one_size() -> None:
    images = supposed_images(2500, load_settings("paper"), (1000, 600), 8)
    assert (images.images, images.shards) == (2500, 3)
    assert images.sizes == {(512, 304): 2500}
    assert images.pixels == 2500 * 512 * 304


def test_coarser_sizes_are_no_advice_where_all_are_one(standin_settings: MakeSettings) -> None:
    def said(sizes: list[tuple[int, int]], shards: int = 5, together: int = 1) -> str:
        plan = Plan("")
        settings = standin_settings("reconstruct.batch_size=4", f"reconstruct.shards_together={together}")
        lots = {(lot, size): 1 for lot in range(shards) for size in sizes}
        plan.add_reconstruct(settings, count_batches(lots, shards, settings), None)
        return " ".join(plan.lines)

    one, two = said([(64, 64)]), said([(64, 64), (64, 48)])
    assert "are 25% full" in one and "are 25% full" in two and "reconstruct.shards_together" in one
    assert ("reconstruct.size_multiple" in one, "reconstruct.size_multiple" in two) == (False, True)
    assert "up to 2 shards in its spool" in one
    few = [said([(64, 64)], shards=1), said([(64, 64)], shards=4), said([(64, 64)], together=8)]
    assert not any("% full" in each for each in few), "more shards together would fill nothing"
    assert "up to one shard in its spool" in few[0]
    alone = said([(64, 64), (64, 48)], shards=1)
    assert "reconstruct.size_multiple" in alone and "reconstruct.shards_together" not in alone


def test_a_tracker_that_train_will_refuse(standin_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sare_core.training.tracking.get_available_trackers", lambda: ["tensorboard"])
    lines = [
        plan_images(standin_settings(f"train.tracker={name}"), 9, (64, 64), None).lines
        for name in ("tensorboard", "none", "wandb")
    ]
    refused = [[line for line in of_one if "pip" in line] for of_one in lines]
    assert refused[:2] == [[], []]
    assert refused[2] == [
        "train will refuse: train.tracker=wandb: not installed. Run: pip install wandb; or set train.tracker=none."
    ]


@pytest.mark.parametrize("detector", ["sare", "difference", "difference_in_difference"])
def test_captions_that_maps_share_are_counted_once(
    standin_settings: MakeSettings, tmp_path: Path, detector: str
) -> None:
    settings = standin_settings(f"detector.detector={detector}")
    pipeline = Pipeline(settings, str(tmp_path / "manifests"), str(tmp_path / "work"))
    index = pipeline.index(genimage_tree(tmp_path / "data", per_cell=6, subsets=["sdv1.4"]))
    graph = Graph(settings, "tree", pipeline.work)
    for plan in (plan_dataset(settings, index, pipeline.work, None), plan_images(settings, 9, (64, 64), None)):
        stages = [row.stage.partition(",")[0] for row in plan.rows]
        assert stages.count("caption") == len(graph.caption_stages(index))
        assert stages.count("reconstruct") == len(graph.reconstruct_stages(index))
