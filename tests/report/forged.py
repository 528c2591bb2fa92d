"""A work folder forged in a second: real files of every stage through the real runner, but no model behind them.

Captions are fixed words; x̂ is the image, moved more the more real it is (and more so under a caption); logits follow
the label with noise. So every number of the report has something to show, and none of them means anything.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sare_core.captioning.stage import CaptionStage
from sare_core.config import load_settings
from sare_core.detectors.folder import open_detector
from sare_core.engine.checkpoints import read_checkpoint, save_checkpoint
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.engine.runner import run
from sare_core.evaluation.metrics import GENIMAGE
from sare_core.evaluation.predict import PredictStage
from sare_core.reconstruction.mapper import Draw, Mapper, Reconstructed
from sare_core.reconstruction.stage import ReconstructStage
from tests.pipeline import QUIET, Pipeline

FOLDERS = {
    "midjourney": "Midjourney/imagenet_midjourney",
    "sdv1.4": "stable_diffusion_v_1_4/imagenet_ai_0419_sdv4",
    "sdv1.5": "stable_diffusion_v_1_5/imagenet_ai_0424_sdv5",
    "adm": "ADM/imagenet_ai_0508_adm",
    "glide": "glide/imagenet_glide",
    "wukong": "wukong/imagenet_ai_0424_wukong",
    "vqdm": "VQDM/imagenet_ai_0419_vqdm",
    "biggan": "BigGAN/imagenet_ai_0419_biggan",
}
WORDS = ("a grey pullover with long sleeves on a pale ground", "a dark ankle boot", "a shirt", "")
HISTORY = [
    {"epoch": 1, "train_loss": 0.68, "accuracy": 0.61, "auc": 0.66, "loss": 0.66},
    {"epoch": 2, "train_loss": 0.55, "accuracy": 0.74, "auc": 0.81, "loss": 0.55},
    {"epoch": 3, "train_loss": 0.41, "accuracy": 0.72, "auc": 0.80, "loss": 0.60},
]


def _rng(*words: object) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:8]))


class ForgedCaptions(CaptionStage):
    def load(self, device: str) -> None: ...

    def collate(self, items: list[Any]) -> list[Any]:
        return items

    def process(self, items: list[Any]) -> list[Any]:
        silent = self.settings.captioner == "none"
        return ["" if silent else WORDS[n % len(WORDS)] for n in range(len(items))]

    def encode(self, row: dict[str, Any], item: Any, result: str) -> dict[str, Any]:
        about = {"captioner": self.settings.captioner, "revision": "", "n_tokens": 3, "truncated": False}
        return {"image_id": row["image_id"], "caption": result} | about


class _NoModel:
    multiple = 8

    def reconstruct(self, *_: Any) -> list[Any]:
        raise AssertionError("x̂ is forged")


class ForgedReconstructions(ReconstructStage):
    def load(self, device: str) -> None:
        self.mapper, self.rows = Mapper(self.settings, self.seed, _NoModel()), dict[str, dict[str, Any]]()

    def batches(self, rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        self.rows |= {row["image_id"]: row for row in rows}
        return super().batches(rows)

    def collate(self, items: list[Any]) -> list[Any]:
        return items

    def process(self, items: list[Any]) -> list[Any]:
        captioned, results = any(item.caption for item in items), []
        for item in items:
            real = self.rows[item.image_id]["label"] == 0
            size = 6 + 14 * real * captioned + 3 * _rng("shift", item.image_id).random()
            noise = _rng("noise", item.image_id).normal(0, size, item.pixels.shape)
            moved = (item.pixels + noise).round().clip(0, 255).astype(np.uint8)
            lpips = {"alex": size / 100}.get(self.settings.lpips or "")
            results.append(Reconstructed([Draw(item.pixels, moved)], lpips))
        return results


class ForgedPredictions(PredictStage):
    def load(self, device: str) -> None: ...

    def read(self, row: dict[str, Any]) -> Any:
        return row

    def collate(self, items: list[Any]) -> list[Any]:
        return items

    def process(self, items: list[Any]) -> list[Any]:
        logits = [3 * bool(row["label"]) - 1.5 + _rng("logit", row["image_id"]).normal(0, 1.5) for row in items]
        return torch.stack([torch.tensor(logits), torch.tensor(logits).sigmoid()], dim=1).tolist()


def settings_of(root: Path, *overrides: str) -> list[str]:
    """`--set` arguments that point the mini preset at folders which only look like models."""
    for name in ("captioner", "diffusion/tokenizer", "image-encoder", "semantic-encoder"):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "config.json").write_text("{}")
    return [
        f"caption.model={root}/captioner",
        f"caption.text_tokenizer={root}/diffusion/tokenizer",
        f"reconstruct.model={root}/diffusion",
        "reconstruct.longer_side=32",
        f"detector.image_encoder={root}/image-encoder",
        f"detector.semantic_encoder={root}/semantic-encoder",
        *overrides,
    ]


def pictures(root: Path, subsets: Iterable[str], test: int, train_images: int = 4, side: int = 32) -> Path:
    """Grey squares with a disc, as PNG in GenImage's layout; `test` and `train_images` of each class."""
    y, x = np.mgrid[:side, :side]
    for subset in subsets:
        for split, count in (("train", train_images), ("val", test)):
            for kind in ("ai", "nature"):
                folder = root / FOLDERS[subset] / split / kind
                folder.mkdir(parents=True)
                for n in range(count if split == "val" or subset == "sdv1.4" else 0):
                    rng = _rng(subset, split, kind, n)
                    centre, radius = rng.uniform(0.35, 0.65, 2) * side, rng.uniform(0.2, 0.35) * side
                    disc = np.hypot(x - centre[0], y - centre[1]) < radius
                    grey = (rng.uniform(40, 110) + disc * rng.uniform(30, 120) + rng.normal(0, 4, x.shape)).clip(0, 255)
                    name = {"ai": f"{n:03}_x_{n:05}.png", "nature": f"ILSVRC2012_val_{n:08}.PNG"}[kind]
                    Image.fromarray(grey.astype(np.uint8)).convert("RGB").save(folder / name)
    return root


def precompute(pipeline: Pipeline, index: Index) -> None:
    """Captions and reconstructions of every shard."""
    settings, graph = pipeline.settings, pipeline.graph
    for stage in (
        ForgedCaptions(settings.caption, settings.view, index, graph.captions),
        ForgedReconstructions(settings.reconstruct, settings.view, settings.seed, index, graph.reconstructions),
    ):
        stage.folder.describe(preset="mini", train_subsets=settings.train_subsets)
        assert run(stage, index, index.shards["shard"].to_list(), QUIET).complete


def train_detector(pipeline: Pipeline, index: Index) -> Folder:
    """A detector of one number, with a history."""
    detector = pipeline.graph.detector_of(index)
    detector.describe(preset="mini")
    for name, history in (("best", HISTORY[:2]), ("last", HISTORY)):
        facts = {"step": len(history), "epoch": len(history), "finished": name == "last", "about": detector.made_by}
        save_checkpoint(detector.store, name, {"model.x": torch.zeros(1)}, history=history, **facts)
    return detector


def predict(pipeline: Pipeline, index: Index, detector: Folder) -> Folder:
    """Predictions of the test split."""
    best = read_checkpoint(detector.store, "best")
    assert best is not None
    folder = pipeline.graph.predictions(best)
    folder.describe(preset="mini", detector=detector.store.url, splits=["test"])
    stage = ForgedPredictions(
        pipeline.settings, index, folder, pipeline.graph.encoders, open_detector(detector.store.url, pipeline.work)
    )
    assert run(stage, index, pipeline.graph.tested_shards(index), QUIET).complete
    return folder


def forge(
    root: Path, overrides: list[str], subsets: Iterable[str] = GENIMAGE, test: int = 6, without: bool = True
) -> Pipeline:
    """All stages up to the predictions below `root`; without: reconstruct without captions too."""
    settings = load_settings("mini", overrides, "genimage")
    pipeline = Pipeline(settings, str(root / "manifests"), str(root / "work"))
    index = pipeline.index(pictures(root / "pictures", subsets, test), shard_size=2 * test)
    precompute(pipeline, index)
    if without:
        silent = load_settings("mini", [*overrides, "caption.captioner=none", "caption.model=null"], "genimage")
        precompute(Pipeline(silent, pipeline.manifests, pipeline.work), index)
    predict(pipeline, index, train_detector(pipeline, index))
    return pipeline
