"""Samples: a detector is given what it needs and nothing else, and may make more than one of an image."""

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from sare_core.config import Settings
from sare_core.detectors.parts import map_role
from sare_core.detectors.transforms import prepare
from sare_core.engine.checkpoints import read_checkpoint
from sare_core.engine.manifest import Index
from sare_core.engine.shardfiles import TarReader
from sare_core.errors import ConfigError, StageError
from sare_core.training.samples import SampleKey, Samples
from tests.pipeline import Pipeline
from tests.trees import genimage_tree

SMALL = [
    "reconstruct.longer_side=32",
    "reconstruct.steps=2",
    "caption.max_new_tokens=2",
    "train.epochs=1",
    "train.batch_size=4",
    "train.micro_batch_size=4",
    "train.workers=0",
]
SILENT = ["caption.captioner=none", "caption.model=null"]
CODE = '''
import torch
from sare_core.detectors.base import Detector
from sare_core.detectors.transforms import as_tensor


class Extra(Detector):
    """As DRCT: x̂ is one more fake. Its loss is not that of the others, and it reads the caption, too."""

    needs = frozenset({"image", "reconstruction", "caption"})
    seen: list = []

    def __init__(self, settings, encoders):
        super().__init__(settings, encoders)
        self.head = torch.nn.Linear(3, 1)

    @classmethod
    def samples(cls, settings):
        return ("image", "reconstruction")

    @classmethod
    def sample(cls, name, parts, label):
        return {"image": parts[name], "caption": parts["caption"]}, 1 if name == "reconstruction" else label

    @classmethod
    def prepare(cls, parts, settings, augment=None, rng=None):
        words = torch.tensor(len(parts["caption"].split()))
        return super().prepare(parts, settings, augment, rng) | {"words": words}

    def forward(self, batch):
        assert batch["words"].dtype == torch.int64
        return self.head(batch["image"].mean((2, 3))).squeeze(-1)

    def loss(self, logits, batch):
        self.seen.append(batch["label"].tolist())
        return ((logits - batch["label"]) ** 2).mean()
'''


@pytest.fixture
def extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "extradetector.py").write_text(CODE)
    yield lambda: sys.modules["extradetector"].Extra
    sys.modules.pop("extradetector", None)


@pytest.fixture
def pipeline(tmp_path: Path, standin_settings: Callable[..., Settings]) -> Callable[..., Pipeline]:
    def at(*overrides: str) -> Pipeline:
        return Pipeline(standin_settings(*SMALL, *overrides), str(tmp_path / "manifests"), str(tmp_path / "work"))

    return at


@pytest.fixture
def index(tmp_path: Path, pipeline: Callable[..., Pipeline]) -> Index:
    return pipeline().index(genimage_tree(tmp_path / "tree", per_cell=6, subsets=["sdv1.4"]))


def made(pipeline: Pipeline) -> Pipeline:
    assert pipeline.captions().complete
    assert pipeline.reconstructions().complete
    return pipeline


def predicted(pipeline: Pipeline) -> pl.DataFrame:
    folder = pipeline.detector()
    assert pipeline.predictions(folder).complete
    best = read_checkpoint(folder.store, "best")
    assert best is not None
    return pl.read_parquet(f"{pipeline.graph.predictions(best).store.url}/*.parquet").sort("image_id")


def test_an_image_detector_needs_no_map(
    index: Index, pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is captioned or reconstructed, and no shard is opened."""
    images = pipeline("detector.detector=image")
    monkeypatch.setattr(TarReader, "__init__", lambda *_: pytest.fail("opens a shard"))
    rows = predicted(images)
    assert sorted(rows["image_id"]) == sorted(index.frame().filter(pl.col("split") == "test")["image_id"])
    assert not (Path(images.work) / "tree" / "reconstructions").exists()
    other = pipeline("detector.detector=image", "view=jpeg:50").graph.detectors([])
    assert other.fingerprint != images.graph.detectors([]).fingerprint, "its view is of its own meaning"


def test_a_map_detector_opens_no_image(
    index: Index, pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = made(pipeline("detector.detector=map", "detector.image_encoder=/none"))
    monkeypatch.setattr("sare_core.detectors.parts.read_image", lambda *_: pytest.fail("reads an image"))
    assert predicted(maps)["logit"].is_finite().all()


def test_two_maps_are_read_together_and_a_missing_one_is_told(index: Index, pipeline: Callable[..., Pipeline]) -> None:
    both = made(pipeline("detector.detector=difference"))
    assert set(both.graph.maps) == {"reconstructions", "reconstructions.uncaptioned"}
    with pytest.raises(StageError, match=re.escape('--set caption.captioner="none" --set caption.model=null')):
        both.graph.training_data(index)
    silent = made(pipeline(*SILENT))
    assert both.graph.maps["reconstructions.uncaptioned"].fingerprint == silent.graph.reconstructions.fingerprint
    train, _ = both.graph.training_data(index)
    item = train[SampleKey(0, 0)]
    assert isinstance(item, dict) and item.keys() == {"sare", "uncaptioned", "label"}
    assert not torch.equal(item["sare"], item["uncaptioned"])
    assert len(train.inputs) == 2 * len(both.graph.trained_shards(index)[0])
    assert predicted(both)["logit"].is_finite().all()


def test_further_fakes_a_loss_and_parts_of_a_detectors_own(
    index: Index, pipeline: Callable[..., Pipeline], extra: Any
) -> None:
    done = made(pipeline("detector.detector=extradetector:Extra"))
    train, val = done.graph.training_data(index)
    rows = index.frame().filter(pl.col("split") == "train")
    assert len(train) == 2 * len(rows)
    items: list[Any] = [train[SampleKey(0, position)] for position in range(len(train))]
    labels = np.array([float(item["label"]) for item in items]).reshape(-1, 2)
    assert (labels[:, 0] == train.labels).all(), "the image is what it is"
    assert (labels[:, 1] == 1).all(), "x̂ is fake, of a real image, too"
    assert all(item["image"].shape == (3, 64, 64) and item["words"].ndim == 0 for item in items)
    assert len(val) == len(index.frame().filter(pl.col("split") == "val")), "what is held out is scored once"
    rows = predicted(done)
    assert rows["image_id"].is_unique().all()
    steps = extra().seen
    assert len(steps) == len(train) // 4 and all(len(labels) == 4 for labels in steps), (
        "it was the loss of the training"
    )


def test_the_image_and_its_reconstruction_are_what_lies_in_the_shard(
    index: Index, pipeline: Callable[..., Pipeline], extra: Any
) -> None:
    done = made(pipeline("detector.detector=extradetector:Extra"))
    settings, maps = done.settings, done.graph.maps
    held_out = Samples(maps, index, done.graph.trained_shards(index)[0], settings.detector, settings.view)
    assert len(held_out) == len(held_out.labels)
    train, _ = done.graph.training_data(index)
    folder = maps[map_role("sare")]
    record = folder.record(int(held_out.shards[0]))
    assert record is not None
    reader = TarReader(folder.output(record))
    first = next(iter(index.frame().filter(pl.col("shard") == record.shard)["image_id"]))
    kept = Image.open(io.BytesIO(reader.read(first, "reconstruction.png"))).convert("RGB")
    train.augment = None
    got: Any = train[SampleKey(0, 1)]
    assert torch.equal(got["image"], prepare({"image": kept}, settings.detector)["image"])
    assert got["words"] == len(json.loads(reader.read(first, "json"))["caption"].split())


def test_reconstructions_that_were_not_kept_are_asked_for(
    index: Index, pipeline: Callable[..., Pipeline], extra: Any
) -> None:
    done = made(pipeline("detector.detector=extradetector:Extra", "reconstruct.keep_reconstruction=false"))
    train, _ = done.graph.training_data(index)
    with pytest.raises(ConfigError, match=r"Extra reads reconstructions, .* reconstruct\.keep_reconstruction=true"):
        train[SampleKey(0, 0)]
