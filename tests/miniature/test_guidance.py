"""One generator at several guidance scales, as a table that `sare index` reads."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from sare_core.errors import ConfigError
from sare_core.index.indexing import build_index
from sare_core.miniature.corpus import FIELDS
from sare_core.miniature.guidance import SCALES, draw
from sare_core.miniature.scenes import compose
from sare_core.miniature.unpack import unpack_models
from tests.miniature.articles import made_up_articles


def test_every_scale_is_a_subset_with_real_images_of_its_own(tmp_path: Path) -> None:
    models = unpack_models(tmp_path / "mini")
    scenes = compose(*made_up_articles(80), range(80), seed=0)
    np.savez(tmp_path / "scenes-validation.npz", **{name: getattr(scenes, name) for name in FIELDS})
    table = draw(models, tmp_path, "nowhere", tmp_path / "drawn", each=10)

    index = build_index("drawn", "folder", str(table), str(tmp_path / "manifests"), 64, 0.0, workers=1).index
    frame = index.frame()
    counts = frame.group_by("subset", "label", "split").len()
    assert counts.height == 2 * len(SCALES) and set(counts["len"]) == {10} and set(counts["split"]) == {"test"}
    assert frame["duplicates"].list.len().sum() == 0, "no photograph serves two scales"
    assert frame["error"].null_count() == frame.height

    # The same noise under more guidance: other images, further from those of scale 1.
    fakes = {
        scale: np.stack(
            [
                np.asarray(Image.open(tmp_path / "drawn" / path), dtype=np.float32)
                for path in sorted(frame.filter(pl.col("path").str.contains(f"guidance-{scale}/fake"))["path"])
            ]
        )
        for scale in SCALES
    }
    assert len(fakes[SCALES[0]]) == 10
    soft = {scale: gaussian_filter(images, (0, 3, 3)) for scale, images in fakes.items()}  # next to no noise is left
    moved = np.abs(soft[7.5] - soft[1.0]).mean()
    assert moved > 5, f"{moved:.1f} levels: what is drawn hangs on the guidance"

    with pytest.raises(ConfigError, match="not empty"):
        draw(models, tmp_path, "nowhere", tmp_path / "drawn", each=10)
    for each in (0, -1, 501):
        with pytest.raises(ConfigError, match="from 1 to 500"):
            draw(models, tmp_path, "nowhere", tmp_path / "other", each=each)
    assert not (tmp_path / "other").exists()
