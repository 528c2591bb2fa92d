"""Thresholds keep their promise: against the definition by p-values, by simulation, and by a closed form."""

import numpy as np
import pytest

from sare_core.detection.calibration import Calibration, ImageSet
from sare_core.detection.results import Thresholds
from sare_core.detection.thresholds import above_reals, below_fakes, interval, judge, predicted, sigmoid
from sare_core.detection.words import of_many
from sare_core.errors import ConfigError


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.5])
@pytest.mark.parametrize("n", [99, 100, 257])
def test_above_is_where_the_conformal_p_value_is_small(n: int, rate: float) -> None:
    logits = np.random.default_rng(n).normal(size=n).round(1)  # so that some are equal
    found = above_reals(logits.tolist(), rate, "them")
    for logit in (*logits, *np.linspace(-4, 4, 81)):
        p_value = (1 + (logits >= logit).sum()) / (n + 1)
        assert (logit > found.logit) == (p_value <= rate + 1e-12)
    assert (found.crossed, found.images) == ((logits > found.logit).sum(), n)
    assert found.interval[0] <= found.rate <= found.interval[1]
    assert found.score == pytest.approx(1 / (1 + np.exp(-found.logit)))


def test_false_alarms_are_as_promised_on_average() -> None:
    draws = np.random.default_rng(0).normal(size=(400, 99 + 1000))
    rates = [(row[99:] > above_reals(row[:99].tolist(), 0.05, "them").logit).mean() for row in draws]
    assert np.mean(rates) == pytest.approx(0.05, abs=0.003)  # five of a hundred: the promise is met exactly


def test_the_interval_is_clopper_and_pearsons() -> None:
    """None of n: its upper end has a closed form. k of n: the mirror image of n - k of n."""
    for n in (50, 400):
        assert interval(0, n) == (0.0, pytest.approx(1 - 0.025 ** (1 / n)))
    low, high = interval(3, 40)
    assert (1 - high, 1 - low) == pytest.approx(interval(37, 40))


def test_the_interval_holds_the_true_rate_of_a_threshold_as_often_as_it_says() -> None:
    """Of uniform scores the true rate is 1 - threshold."""
    draws = np.random.default_rng(1).uniform(size=(300, 150))
    found = [above_reals(row.tolist(), 0.04, "them") for row in draws]
    held = np.mean([each.interval[0] <= 1 - each.logit <= each.interval[1] for each in found])
    assert 0.95 - 0.03 <= held <= 1


def test_few_photographs_are_told_what_they_can_promise() -> None:
    with pytest.raises(
        ConfigError, match=r"50 real photographs cannot promise --fpr 0\.01: that takes 99 at least"
    ) as e:
        above_reals([0.0] * 50, 0.01, "holiday")
    assert "--fpr 0.0197 is the least" in str(e.value)
    assert above_reals([0.0] * 50, 0.0197, "holiday").crossed == 0
    above_reals([0.0] * 99, 0.01, "holiday")
    with pytest.raises(ConfigError, match=r"0 generated images cannot promise --miss-rate 0\.5"):
        below_fakes([], 0.5, "none")


def test_the_other_threshold_is_its_mirror_image() -> None:
    logits = np.random.default_rng(3).normal(size=120).tolist()
    above, below = above_reals(logits, 0.05, "them"), below_fakes([-logit for logit in logits], 0.05, "them")
    assert below.logit == -above.logit
    assert below.score == pytest.approx(1 - above.score)
    assert below.crossed == above.crossed


def test_what_a_score_is_called() -> None:
    reals, fakes = np.linspace(-5, 1, 100).tolist(), np.linspace(-1, 5, 100).tolist()
    both = Thresholds(likely_ai=above_reals(reals, 0.02, "r"), likely_real=below_fakes(fakes, 0.02, "f"))
    alone = Thresholds(likely_ai=above_reals(reals, 0.02, "r"), likely_real=None)
    for thresholds, logit, verdict, code in [
        (both, 3, "likely_ai", "above_threshold"),
        (both, -3, "likely_real", "below_threshold"),
        (both, 0, "inconclusive", "between_thresholds"),
        (both, both.likely_ai.logit, "inconclusive", "between_thresholds"),
        (alone, 3, "likely_ai", "above_threshold"),
        (alone, -3, "inconclusive", "between_thresholds"),
    ]:
        found, reason = judge(logit, thresholds)
        assert (found, reason.code) == (verdict, code)
    apart = Thresholds(
        likely_ai=above_reals(np.linspace(-5, -4, 100).tolist(), 0.02, "r"),
        likely_real=below_fakes(np.linspace(4, 5, 100).tolist(), 0.02, "f"),
    )
    assert judge(0, apart)[1].code == "unlike_both"
    assert [judge(logit, apart)[0] for logit in (-4.5, 0, 4.5)] == ["likely_real", "inconclusive", "likely_ai"]


def test_predicted_false_alarms_are_as_many_as_happen() -> None:
    random, inside = np.random.default_rng(4), 0
    for _ in range(400):
        threshold = above_reals(random.normal(size=99).tolist(), 0.05, "them")
        low, high = predicted(threshold, 300)
        crossed = (random.normal(size=300) > threshold.logit).sum()
        inside += low <= crossed <= high
    assert 0.93 <= inside / 400 <= 0.99
    few = above_reals([0.0] * 19, 0.05, "them")  # one further image is above 19 with a chance of 1 in 20
    assert predicted(few, 1) == (0, 1)


@pytest.mark.parametrize(
    ("verdicts", "told"),
    [
        ({"likely_real": 1, "inconclusive": 9, "no_verdict": 90}, "all 10 with a score"),
        ({"inconclusive": 10}, "at most 2 of them"),
        ({"no_verdict": 3}, None),
    ],
)
def test_false_alarms_are_expected_of_images_with_a_score(verdicts: dict[str, int], told: str | None) -> None:
    logits = np.linspace(-5, 1, 99).tolist()
    reals = ImageSet(name="them", digest="", files=[], logits=logits, left_out={}, ranges={}, formats=[])
    thresholds = Thresholds(likely_ai=above_reals(logits, 0.05, "them"), likely_real=None)
    lines = list(of_many(verdicts, Calibration.model_construct(reals=reals, thresholds=thresholds), []))
    assert len(lines) == (1 if told is None else 2)
    assert told is None or told in lines[1]


@pytest.mark.parametrize("logit", [-1000.0, -3.0, 0.0, 3.0, 1000.0])
def test_sigmoid_never_overflows(logit: float) -> None:
    assert sigmoid(logit) == pytest.approx(0.5 * (1 + np.tanh(logit / 2)))
