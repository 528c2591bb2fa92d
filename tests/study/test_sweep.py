import numpy as np
import polars as pl
import pytest

from sare_core.errors import ConfigError
from sare_core.study.sweep import sweep_results
from sare_core.study.variants import caption_levels, grid


def frame(values):
    rows = [(f"i{n}", "sdv1.4", n % 2, float(value), None) for n, value in enumerate(values)]
    schema = {"image_id": pl.String, "subset": pl.String, "label": pl.Int8, "error": pl.Float64, "lpips": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_the_grid_has_each_place_once_and_no_guidance_without_a_caption():
    cells = grid(caption_levels(["coarse=models/a", "rich=models/b"]))
    assert len(cells) == 4 * (1 + 2 * 3)
    assert len({(cell.strength, cell.guidance, cell.level) for cell in cells}) == len(cells)
    assert all((cell.level == "none") == (cell.guidance is None) for cell in cells)
    assert "caption.model=models/b" in next(cell for cell in cells if cell.level == "rich").settings
    assert {cell.level for cell in grid(caption_levels([]))} == {"none", "captioned"}
    with pytest.raises(ConfigError, match="name=folder"):
        caption_levels(["coarse"])


def test_each_row_is_what_its_cell_gives():
    random = np.random.default_rng(0)
    own, real = random.normal(30, 5, 200), 1 - np.arange(200) % 2
    cells = grid({"coarse": []})
    errors = [
        frame(own + real * (10 * cell.strength + (cell.guidance or 0)) + random.normal(size=200)) for cell in cells
    ]
    kept = [
        pl.DataFrame({"label": [0, 0, 1, 1], "kept": [True, False, True, True]}, schema_overrides={"label": pl.Int8})
        for _ in cells
    ]
    results = sweep_results(cells, errors, frame(own), kept, 0, resamples=100)
    assert results.select("strength", "guidance", "caption").rows() == [cell[:3] for cell in cells]
    assert set(results["n_real"]) == set(results["n_fake"]) == {100}
    assert set(results["kept_real"]) == {0.5}
    assert set(results["kept_fake"]) == {1.0}
    for row in results.iter_rows(named=True):
        assert row["net"] == pytest.approx(10 * row["strength"] + (row["guidance"] or 0), abs=0.5)
        assert row["net_low"] < row["net"] < row["net_high"] < row["net_low"] + 1
        assert row["delta_high"] - row["delta_low"] > 2, "not paired with the autoencoder"
        if row["guidance"] is None:
            assert row["share"] is None
        else:
            assert row["share"] == pytest.approx(row["guidance"], abs=0.5)
        assert row["auc"] > 0.6
