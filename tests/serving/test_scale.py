"""The picture of a score among the thresholds says what the verdict says."""

import numpy as np
import pytest

from sare_core.detection.results import Threshold, Thresholds
from sare_core.detection.thresholds import judge
from sare_core.detection.words import VERDICTS
from sare_core.serving.page import WIDTH, scale_of


def threshold(logit: float) -> Threshold:
    return Threshold(
        logit=logit, score=0.5, promised=0.01, rate=0, interval=(0, 0.04), crossed=0, images=100, measured_on="it"
    )


@pytest.mark.parametrize(("ai", "real"), [(2.0, None), (2.0, -3.0), (-1.0, 1.5), (0.5, 0.5)])
def test_the_mark_lies_in_the_zone_of_the_verdict(ai: float, real: float | None) -> None:
    thresholds = Thresholds(likely_ai=threshold(ai), likely_real=None if real is None else threshold(real))
    for logit in np.linspace(-9.05, 9.05, 60):
        scale = scale_of(float(logit), thresholds)
        (zone,) = [zone for zone in scale.zones if zone.left < scale.mark <= zone.right]
        assert zone.name == VERDICTS[judge(float(logit), thresholds)[0]]
        assert 0 < scale.mark < WIDTH == scale.zones[-1].right
        assert scale.text.startswith(f"Score {logit:.2f}. The scale: {scale.zones[0].name}, from ")
