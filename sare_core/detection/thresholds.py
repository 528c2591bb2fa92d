"""Thresholds with a promise, from scores of images whose kind is known (split conformal prediction).

A real photograph drawn as those of the calibration scores above the k-th highest of their n scores with a chance of
k / (n + 1) at most, whatever the detector (Vovk et al., Algorithmic Learning in a Random World, 2005). k is the largest
with k / (n + 1) <= rate. That holds on average over calibrations; of one calibration the true rate lies in the exact
interval of Clopper and Pearson around the k - 1 of n that are above.
"""

import math
from collections.abc import Sequence

import numpy as np

from sare_core.detection.results import Reason, Threshold, Thresholds, Verdict
from sare_core.errors import ConfigError

CONFIDENCE = 0.95
REALS, FAKES = "real photographs", "generated images"


def above_reals(logits: Sequence[float], rate: float, name: str) -> Threshold:
    """The threshold that at most this share of real photographs scores above. Raises ConfigError: too few of them."""
    return _highest(np.asarray(logits), rate, name, REALS)


def below_fakes(logits: Sequence[float], rate: float, name: str) -> Threshold:
    """The threshold that at most this share of generated images scores below. Raises ConfigError: too few of them."""
    found = _highest(-np.asarray(logits), rate, name, FAKES)
    return found.model_copy(update={"logit": -found.logit, "score": sigmoid(-found.logit)})


def judge(logit: float, thresholds: Thresholds) -> tuple[Verdict, Reason]:
    """Which of real and generated a score leaves possible: one of them, both or neither."""
    ai, real = thresholds.likely_ai, thresholds.likely_real
    unlike_real, unlike_fake = logit > ai.logit, real is not None and logit < real.logit
    if unlike_real and unlike_fake:
        text = f"It scores higher than the photographs of “{ai.measured_on}” and lower than the generated images."
        return "inconclusive", Reason(code="unlike_both", text=text)
    if unlike_real:
        return "likely_ai", Reason(code="above_threshold", text=_beyond(ai, REALS, "above"))
    if real is not None and unlike_fake:
        return "likely_real", Reason(code="below_threshold", text=_beyond(real, FAKES, "below"))
    also = "generated images of the calibration do, too" if real else "how generated images score was not calibrated"
    text = f"Real photographs of “{ai.measured_on}” score as high; {also}."
    return "inconclusive", Reason(code="between_thresholds", text=text)


def interval(crossed: int, images: int) -> tuple[float, float]:
    """The exact 95 % interval of a rate (Clopper and Pearson)."""
    from scipy.stats import binomtest

    found = binomtest(crossed, images).proportion_ci(CONFIDENCE, method="exact")
    return float(found.low), float(found.high)


def predicted(threshold: Threshold, images: int) -> tuple[int, int]:
    """95 % prediction interval of how many of so many further images of the set's kind cross its threshold.

    It is itself a score of the set, with k of n beyond it, so a further image crosses with a chance that is drawn from
    Beta(k + 1, n - k); of many, their number is beta-binomial (Wilks, Mathematical Statistics, 1962).
    """
    from scipy.stats import betabinom

    count = betabinom(images, threshold.crossed + 1, threshold.images - threshold.crossed)
    low, high = count.ppf([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return max(0, int(low)), int(high)


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def _beyond(threshold: Threshold, kind: str, side: str) -> str:
    return (
        f"It scores {side} the threshold; so do {threshold.crossed:,} of the {threshold.images:,} {kind} of "
        f"“{threshold.measured_on}”."
    )


def require_enough(images: int, rate: float, name: str, kind: str = REALS, left_out: str = "") -> int:
    """k: how many of so many images, and of one more, a rate lets through. left_out: others, and why.

    Raises ConfigError: less than one.
    """
    k = math.floor(rate * (images + 1) + 1e-9)  # 0.01 * 100 is below 1 in binary
    if k < 1:
        option, need = "--fpr" if kind == REALS else "--miss-rate", math.ceil(1 / rate - 1e-9) - 1
        least = math.ceil(1e4 / (images + 1)) / 1e4
        can = f" With these, {option} {least:g} is the least that can be promised." if images else ""
        raise ConfigError(
            f"{name}: {images:,} {kind} cannot promise {option} {rate:g}: that takes {need:,} at least.{can}"
            + (f" Left out: {left_out}." if left_out else "")
        )
    return k


def _highest(logits: np.ndarray, rate: float, name: str, kind: str) -> Threshold:
    n = len(logits)
    k = require_enough(n, rate, name, kind)
    threshold = float(np.sort(logits)[n - k])
    crossed = int((logits > threshold).sum())  # k - 1, or fewer where several have one score
    return Threshold(
        logit=threshold,
        score=sigmoid(threshold),
        promised=rate,
        rate=crossed / n,
        interval=interval(crossed, n),
        crossed=crossed,
        images=n,
        measured_on=name,
    )
