"""A rehearsal of the premise table: two steps of each recipe, on made-up articles."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from sare_core.miniature.corpus import FIELDS
from sare_core.miniature.premise import GATES, IMAGES, compare
from sare_core.miniature.scenes import PARTS, compose
from sare_core.miniature.tables import COLUMNS, COMMAND, write_premise
from sare_core.miniature.world import SUBSETS, World
from tests.miniature.articles import made_up_articles


def test_the_premise_table_has_a_row_for_every_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    articles, labels = made_up_articles(80)
    for number, part in enumerate(PARTS):
        scenes = compose(articles, labels, range(80), seed=number)
        np.savez(tmp_path / f"scenes-{part}.npz", **{name: getattr(scenes, name) for name in FIELDS})
    monkeypatch.setattr("sare_core.miniature.tables.VALIDATION", 10)
    monkeypatch.setattr("sare_core.miniature.tables.SUBSETS", [s for s in SUBSETS if s.name in ("sdv1.4", "adm")])
    world = World(tmp_path, "nowhere", scale=0.0001)
    write_premise(world, tmp_path / "out")
    table = pl.read_csv(tmp_path / "out" / "premise.csv")
    assert table["images"].to_list() == [
        *("photographs", "sdv1.4", "adm", "sdv1.4"),
        *("photographs", "sdv1.4", "adm"),  # reconstructed by the second model
        *("photographs", "sdv1.4", "adm", "sdv1.4"),
    ]
    assert set(COLUMNS) <= set(table.columns)
    text = (tmp_path / "out" / "premise.md").read_text()
    assert text.count("\n| 0") == 11 and COMMAND in text
    assert Image.open(tmp_path / "out" / "premise.png").size == (10 * 34 * 3, 3 * 34 * 3)

    monkeypatch.setattr("sare_core.miniature.tables.measure", None)  # what has been measured is not measured again
    write_premise(world, tmp_path / "again")
    assert (tmp_path / "again" / "premise.md").read_text() == text


def _images(captioned: float, uncaptioned: float, fit: float, extras: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(400, 3)) * 0.5
    columns = {"prompted": 0, "right": True, "extras": extras, "kept": True, "autoencoder": 1.0}
    numbers = {
        "captioned": captioned + noise[:, 0],
        "uncaptioned": uncaptioned + noise[:, 1],
        "fit": fit + noise[:, 2],
        "embedding": (rng.normal(size=(400, 3)) + extras).tolist(),
        "pixels": (rng.normal(size=(400, 3)) - extras).tolist(),
    }
    return pl.DataFrame({name: numbers.get(name, [columns.get(name)] * 400) for name in IMAGES}, schema=IMAGES)


def test_a_row_points_in_the_papers_direction() -> None:
    """Photographs move more than generated images under their caption, by 2 levels, and by 1 without."""
    real, drawn = _images(6, 5, -2, 2, 0), _images(4, 4, 0, 0, 1)
    row = compare(real, drawn, drawn)
    for name, expected in (("delta_captioned", 2), ("delta_uncaptioned", 1), ("delta_share", 1)):
        middle, low, high = row[name]
        assert middle == pytest.approx(expected, abs=0.15) and low < middle < high and high - low < 0.4
    assert row["captioned_auc"] > 95 and row["fit_auc"] > 85 and row["autoencoder_auc"] == 50
    assert 80 < row["share_auc"] < 99 and row["extras_fewer"] == 2 and row["kept"] == 100
    assert row["encoder_auc"] > 95 and row["pixels_auc"] > 95
    assert row["missed"] == ["fit_auc"], "more than 90 %"
    assert compare(real, drawn, real)["pixels_auc"] == pytest.approx(50, abs=10), "what was fitted to others"


def test_a_missed_gate_is_named() -> None:
    real = _images(6, 5, 0, 2, 0)
    assert set(compare(real, _images(6, 5, 0, 2, 1), real)["missed"]) == {"extras_fewer", "fit_auc", "encoder_auc"}
    assert set(GATES) == {"extras_fewer", "fit_auc", "autoencoder_auc", "encoder_auc", "kept"}
