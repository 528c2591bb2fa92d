"""A rehearsal of the recipes and of the premise table: two steps each, on made-up articles."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from sare_core.scale_model import training
from sare_core.scale_model.corpus import FIELDS
from sare_core.scale_model.premise import IMAGES, compare
from sare_core.scale_model.scenes import CLASSES, PARTS, compose
from sare_core.scale_model.tables import COLUMNS, write_premise
from sare_core.scale_model.world import RECIPES, World
from tests.miniature.articles import made_up_articles


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Of 80 scenes a part, with nothing trained before."""
    monkeypatch.setattr(training, "TRAINED", tmp_path / "trained")
    articles, labels = made_up_articles(80)
    for number, part in enumerate(PARTS):
        scenes = compose(articles, labels % len(CLASSES), range(80), seed=number)
        np.savez(tmp_path / f"scenes-{part}.npz", **{name: getattr(scenes, name) for name in FIELDS})
    return World(tmp_path, "nowhere", scale=0.0001)


def test_the_premise_table_is_made_of_what_the_recipes_train(world: World, tmp_path: Path) -> None:
    write_premise(world, tmp_path / "out", each=6)
    trained = {folder.name.replace("_", "-") for folder in tmp_path.iterdir() if (folder / "curve.jsonl").is_file()}
    assert trained == RECIPES.keys()
    table = pl.read_csv(tmp_path / "out" / "premise.csv")
    assert table["images"].to_list() == ["photographs", "guidance 1", "guidance 7.5"] * 2
    assert set(COLUMNS) <= set(table.columns)
    text = (tmp_path / "out" / "premise.md").read_text()
    assert text.count("\n| 0") == 6 and "python -m sare_core.scale_model premise" in text
    assert Image.open(tmp_path / "out" / "premise.png").size == (6 * 34 * 3, 5 * 34 * 3)


def test_what_is_kept_is_not_trained_again(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = world.counter().state_dict()
    (tmp_path / "trained").mkdir()
    kept = tmp_path / "counter" / "counter.classifier.safetensors"
    kept.rename(tmp_path / "trained" / kept.name)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it trains")

    monkeypatch.setattr(training, "train", refuse)
    again = World(tmp_path / "another", "nowhere")
    again.scenes = world.scenes
    for name, value in again.counter().state_dict().items():
        assert torch.equal(value, first[name]), name
    with pytest.raises(AssertionError, match="it trains"):
        again.semantic_encoder()


def test_a_row_points_in_the_papers_direction() -> None:
    """Photographs move more than generated images under their caption, by 2 levels, and by 1 without."""
    rng = np.random.default_rng(0)

    def images(captioned: float, uncaptioned: float, fit: float) -> pl.DataFrame:
        noise = rng.normal(size=(400, 3)) * 0.5
        columns = {"prompted": 0, "right": True, "extras": 2, "kept": True, "autoencoder": 1.0}
        numbers = {
            "captioned": captioned + noise[:, 0],
            "uncaptioned": uncaptioned + noise[:, 1],
            "fit": fit + noise[:, 2],
        }
        return pl.DataFrame({name: numbers.get(name, [columns.get(name)] * 400) for name in IMAGES}, schema=IMAGES)

    row = compare(images(6, 5, -1), images(4, 4, 0))
    for name, expected in (("delta_captioned", 2), ("delta_uncaptioned", 1), ("delta_share", 1)):
        middle, low, high = row[name]
        assert middle == pytest.approx(expected, abs=0.15) and low < middle < high and high - low < 0.4
    assert row["captioned_auc"] > 95 and row["fit_auc"] > 85 and row["autoencoder_auc"] == 50
    assert 80 < row["share_auc"] < 99
