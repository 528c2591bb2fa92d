"""The trained miniature end to end, at a tiny size: what the method reaches there stays what it was.

python -m tests.end_to_end.test_regression      # measures anew and rewrites recorded.json; look at the difference
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sare_core.config import load_settings
from sare_core.engine.audit import folders
from sare_core.evaluation.metrics import is_mean, subset_metrics
from sare_core.miniature.unpack import unpack_images, unpack_models
from tests.pipeline import Pipeline

RECORDED = Path(__file__).with_name("recorded.json")
TRAIN, TEST = 400, 50  # images of each class and subset
TESTED = ("stable_diffusion_v_1_4", "ADM", "BigGAN")
MODELS = {
    "caption.model": "captioner",
    "caption.text_tokenizer": "diffusion/tokenizer",
    "reconstruct.model": "diffusion",
    "detector.image_encoder": "image-encoder",
    "detector.semantic_encoder": "semantic-encoder",
}


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """AUC of each subset on a part of the demo's images, and its standard error (Hanley and McNeil 1982)."""
    models, images = unpack_models(folder / "models"), unpack_images(folder / "all")
    for name in TESTED:
        for cell in (images / name).glob("*/*/*"):
            kept = sorted(cell.iterdir())[: TRAIN if cell.parent.name == "train" else TEST]
            target = folder / "images" / cell.relative_to(images)
            target.mkdir(parents=True)
            for file in kept:
                shutil.copy(file, target)
    settings = load_settings("mini", [f"{key}={models}/{name}" for key, name in MODELS.items()], "genimage")
    pipeline = Pipeline(settings, str(folder / "manifests"), str(folder / "work"))
    pipeline.index(folder / "images", shard_size=100)
    assert pipeline.captions().complete
    assert pipeline.reconstructions().complete
    assert pipeline.predictions(pipeline.detector()).complete
    (predicted,) = [found for found in folders(pipeline.work) if found.stage == "predictions"]
    outputs = [record.output for record in predicted.records().values() if record.output]
    rows = pl.concat([pl.read_parquet(predicted.store.local(output.name)) for output in outputs])
    aucs = subset_metrics(rows).filter(~is_mean()).select("subset", "auc").iter_rows()
    return {subset: {"auc": auc, "standard_error": standard_error(auc, TEST, TEST)} for subset, auc in aucs}


def standard_error(auc: float, real: int, fake: int) -> float:
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    variance = auc * (1 - auc) + (fake - 1) * (q1 - auc * auc) + (real - 1) * (q2 - auc * auc)
    return float(np.sqrt(max(variance, 1e-4) / (real * fake)))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_auc_is_within_three_standard_errors_of_the_recorded_one(folder: Path) -> None:
    recorded, measured = json.loads(RECORDED.read_text()), measure(folder)
    assert measured.keys() == recorded.keys()
    for subset, now in measured.items():
        then = recorded[subset]
        assert abs(now["auc"] - then["auc"]) <= 3 * then["standard_error"], f"{subset}: {now['auc']}, was {then['auc']}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        RECORDED.write_text(json.dumps(measure(Path(name)), indent=2) + "\n")
        print(RECORDED.read_text())
