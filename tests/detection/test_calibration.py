"""A calibration: what it is made of, where it is kept, and whether later photographs still look like it."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sare_core.detection.calibration import (
    Calibration,
    calibrate,
    drift,
    find_calibration,
    image_set,
    save_calibration,
)
from sare_core.errors import ConfigError
from sare_core.store.storage import Store
from tests.detection.conftest import StandIn, calibrated, grained, scored


def test_it_is_named_by_what_made_it(stand_in: StandIn, reals: Path, calibration: Calibration, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / reals.name
    shutil.copytree(reals, elsewhere)
    (elsewhere / "00.png").rename(elsewhere / "zz.png")
    assert calibrated(stand_in, elsewhere).digest == calibration.digest, "names and order play no part"
    assert calibrated(stand_in, reals, fpr=0.1).digest != calibration.digest
    (elsewhere / "zz.png").unlink()
    assert calibrated(stand_in, elsewhere).digest != calibration.digest
    assert calibration.reals.ranges == {"shorter side": (48, 48), "longer side": (64, 64)}
    assert calibration.reals.formats == ["PNG"]


def test_an_image_counts_once_however_often_it_is_stored(stand_in: StandIn, reals: Path) -> None:
    once = scored(stand_in, reals)
    shutil.copy(reals / "07.png", reals / "copy.png")
    grained(45 + 1.6 * 7, 7).save(reals / "other-bytes.png", compress_level=0)
    found, distinct = image_set("reals", scored(stand_in, reals), Counter({"blank": 2}))
    assert len(distinct) == len(found.logits) == len(once) == 40
    assert found.left_out == {"blank": 2, "the same pixels as another": 2}


def test_an_image_cannot_be_both(stand_in: StandIn, reals: Path, tmp_path: Path) -> None:
    fakes = tmp_path / "fakes"
    shutil.copytree(reals, fakes)
    with pytest.raises(ConfigError, match="40 images are among the reals and among the fakes"):
        calibrated(stand_in, reals, fakes)


def test_it_is_found_for_the_scoring_that_it_was_made_for(
    stand_in: StandIn, reals: Path, calibration: Calibration, tmp_path: Path
) -> None:
    store = stand_in.folder.store
    assert find_calibration(store, "0" * 12) is None
    later = calibration.model_copy(update={"digest": "f" * 12, "created": "2999-01-01T00:00:00+00:00"})
    save_calibration(later, store)
    assert find_calibration(store, stand_in.scoring) == later
    assert find_calibration(store, stand_in.scoring, calibration.digest) == calibration
    place = save_calibration(calibration, Store(str(tmp_path / "kept")))
    assert find_calibration(store, stand_in.scoring, place) == calibration
    with pytest.raises(ConfigError, match="made for another detector"):
        find_calibration(store, "0" * 12, calibration.digest)
    with pytest.raises(ConfigError, match="no such calibration"):
        find_calibration(store, stand_in.scoring, "0" * 12)
    Path(place).write_text("{}")
    with pytest.raises(ConfigError, match="not a calibration"):
        find_calibration(store, stand_in.scoring, place)


def test_drift_is_noticed_where_there_is_some(calibration: Calibration) -> None:
    logits = np.array(calibration.reals.logits)
    same = drift(calibration, logits[::2].tolist())
    assert not same.noticed and not same.too_many and same.images == 20
    high = [*logits[:32].tolist(), *[float(logits.max()) + 1] * 8]
    assert (found := drift(calibration, high)).too_many and not found.noticed, "too few to move the whole"
    assert found.most < found.crossed == 8
    shifted = drift(calibration, (logits + 3).tolist())
    assert shifted.noticed and shifted.statistic > same.statistic
    assert shifted.crossed == (logits + 3 > calibration.thresholds.likely_ai.logit).sum() > 20
    with pytest.raises(ConfigError, match="nothing to compare"):
        drift(calibration, [])


def test_too_few_are_refused_before_anything_is_kept(stand_in: StandIn, reals: Path) -> None:
    with pytest.raises(ConfigError, match=r"reals: 40 real photographs cannot promise --fpr 0\.01"):
        calibrated(stand_in, reals, fpr=0.01)
    empty = image_set("empty", [], Counter())
    with pytest.raises(ConfigError, match="empty: 0 real photographs"):
        calibrate("d", stand_in.scoring, empty, None, 0.5, 0.5)
