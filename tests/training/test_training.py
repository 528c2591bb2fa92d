from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from sare_core.config import load_settings
from sare_core.config.training import TrainSettings
from sare_core.errors import ConfigError
from sare_core.training.steps import Entry, best_epoch, best_threshold, learning_rate, micro_batch, step_seed

# The rates of the backbone's own training run, epochs 0 to 16, in units of 1e-4 and to the digits printed there.
BOUNCE = [1, 0.905, 0.655, 0.345, 0.0955, 0, 0.0955, 0.345, 0.655, 0.905, 1, 0.905, 0.655, 0.345, 0.0955, 0, 0.0955]


def plan(**changes: Any) -> TrainSettings:
    return load_settings("paper").train.model_copy(update=changes)


def rates_of_torch(epochs: int, t_max: int, base: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=base)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=t_max)
    rates = []
    for _ in range(epochs):
        rates.append(float(scheduler.get_last_lr()[0]))
        optimizer.step()
        scheduler.step()
    return rates


def test_the_bounce_is_the_published_one() -> None:
    rates = [learning_rate(plan(), 10 * epoch, steps_per_epoch=10) for epoch in range(17)]
    assert [rate / 1e-4 for rate in rates] == pytest.approx(BOUNCE, abs=5e-4)
    assert rates[5] == rates[15] == 0.0


def test_the_bounce_is_the_one_of_torch() -> None:
    rates = [learning_rate(plan(), epoch, steps_per_epoch=1) for epoch in range(17)]
    assert rates == pytest.approx(rates_of_torch(17, t_max=5, base=1e-4), abs=1e-12)


def test_the_bounce_keeps_its_rate_within_an_epoch() -> None:
    rates = [learning_rate(plan(), step, steps_per_epoch=4) for step in range(12)]
    assert [len(set(rates[start : start + 4])) for start in (0, 4, 8)] == [1, 1, 1]
    assert len(set(rates)) == 3


def test_the_cosine_is_the_one_of_torch_step_by_step() -> None:
    settings = plan(schedule="cosine", epochs=3, learning_rate=1e-3)
    rates = [learning_rate(settings, step, steps_per_epoch=4) for step in range(12)]
    assert rates == pytest.approx(rates_of_torch(12, t_max=12, base=1e-3), abs=1e-12)
    assert rates[0] == 1e-3
    assert min(rates) == rates[-1] > 0


def test_a_constant_rate() -> None:
    assert {learning_rate(plan(schedule="constant"), step, 3) for step in range(20)} == {1e-4}


@pytest.mark.parametrize(
    ("batch", "micro", "processes", "expected"),
    [(512, 64, 1, 64), (512, 64, 8, 64), (512, 512, 1, 512), (16, 64, 1, 16), (48, 16, 3, 16)],
)
def test_a_micro_batch_divides_a_step(batch: int, micro: int, processes: int, expected: int) -> None:
    assert micro_batch(plan(batch_size=batch, micro_batch_size=micro), processes) == expected


@pytest.mark.parametrize(("batch", "micro"), [(512, 48), (10, 4)])
def test_a_batch_that_does_not_divide(batch: int, micro: int) -> None:
    with pytest.raises(ConfigError, match=rf"train\.batch_size={batch} does not divide by .*={micro}; change one"):
        micro_batch(plan(batch_size=batch, micro_batch_size=micro), 1)


@pytest.mark.parametrize(("batch", "micro", "processes"), [(512, 64, 3), (512, 64, 16), (4, 1, 8), (32, 32, 2)])
def test_processes_that_cannot_share_a_step_evenly(batch: int, micro: int, processes: int) -> None:
    """A micro-batch does not shrink for their sake: BatchNorm would see other batches."""
    parts = batch // micro
    with pytest.raises(ConfigError, match=rf"not divide by {processes} processes.* a number .* that divides {parts};"):
        micro_batch(plan(batch_size=batch, micro_batch_size=micro), processes)


def test_every_micro_batch_of_every_step_has_a_seed_of_its_own() -> None:
    seeds = {step_seed(seed, step, place) for seed in range(3) for step in range(20) for place in range(3)}
    assert len(seeds) == 180
    assert step_seed(1, 23, 4) == step_seed(1, 23, 4) != step_seed(12, 3, 4)
    for seed in seeds:
        torch.Generator().manual_seed(seed)  # in the range that torch takes


def entry(accuracy: float | None, loss: float | None = 0.5) -> Entry:
    return {"accuracy": accuracy, "auc": None, "loss": loss}


@pytest.mark.parametrize(
    ("history", "best"),
    [
        ([entry(0.7)], 0),
        ([entry(0.7), entry(0.9), entry(0.8)], 1),
        ([entry(0.9, 0.4), entry(0.9, 0.3), entry(0.9, 0.6)], 1),  # of equal accuracies the lower loss
        ([entry(0.8, 0.1), entry(0.9, 0.3), entry(0.9, 0.3)], 1),  # of equals in both the first
        ([entry(0.0, 2.0), entry(0.0, 1.0)], 1),
        ([entry(None, None)] * 3, 2),  # nothing was held out
    ],
)
def test_the_best_epoch(history: list[Entry], best: int) -> None:
    assert best_epoch(history) == best


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_is_the_best_for_balanced_accuracy(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = (random.random(60) < 0.3).astype(int)
    logits = np.round(random.normal(1 + labels, 1), 1).astype(np.float32)
    scores = [balanced_accuracy_score(labels, logits > one) for one in [-9.0, *np.unique(logits)]]
    assert balanced_accuracy_score(labels, logits > best_threshold(labels, logits)) == pytest.approx(max(scores))


def test_the_threshold_lies_half_way_between_two_logits_or_above_all() -> None:
    assert best_threshold(np.array([0, 0, 1]), np.array([-3.0, 1.0, 2.0])) == 1.5
    assert best_threshold(np.array([1, 0]), np.array([-1.0, 4.0])) == 4.0
