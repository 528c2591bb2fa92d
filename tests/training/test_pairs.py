from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch

from sare_core.config import load_settings
from sare_core.config.training import TrainSettings
from sare_core.training.samples import MicroBatches, SampleKey, epoch_order

SHARDS = [shard for shard in (7, 3, 11, 2) for _ in range(24)]  # of each position; numbers need not follow each other


def plan(**changes: Any) -> TrainSettings:
    return load_settings("paper").train.model_copy(update={"batch_size": 12, "shuffle_shards": 2} | changes)


def micro_batches(
    steps: range, micro: int = 4, rank: int = 0, world: int = 1, seed: int = 0, **changes: Any
) -> MicroBatches:
    return MicroBatches(SHARDS, plan(**changes), seed, steps, micro, rank, world)


def steps_of(batches: list[list[SampleKey]], per_step: int) -> list[list[SampleKey]]:
    """Micro-batches put together to steps."""
    return [list(chain(*batches[start : start + per_step])) for start in range(0, len(batches), per_step)]


@pytest.mark.parametrize("mixed", [1, 2, 3, 4, 100])
def test_an_epoch_holds_every_position_once(mixed: int) -> None:
    order = epoch_order(SHARDS, seed=0, epoch=5, mixed=mixed)
    assert sorted(order.tolist()) == list(range(len(SHARDS)))


def test_an_order_depends_on_seed_and_epoch_alone() -> None:
    orders = [epoch_order(SHARDS, seed, epoch, 2).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert epoch_order(SHARDS, 1, 1, 2).tolist() == orders[3]


@pytest.mark.parametrize("mixed", [1, 2, 4])
def test_so_many_shards_are_mixed_at_a_time(mixed: int) -> None:
    order = np.asarray(SHARDS)[epoch_order(SHARDS, 0, 0, mixed)]
    windows = [set(order[start : start + 24 * mixed].tolist()) for start in range(0, len(order), 24 * mixed)]
    assert [len(window) for window in windows] == [mixed] * (4 // mixed)
    assert set().union(*windows) == set(SHARDS)
    runs = 1 + np.count_nonzero(order[1:] != order[:-1])
    assert runs == 4 if mixed == 1 else runs > 24  # in runs of two on average, or shorter


def test_shards_come_in_another_order_each_epoch() -> None:
    firsts = {SHARDS[epoch_order(SHARDS, 0, epoch, 1)[0]] for epoch in range(40)}
    assert firsts == set(SHARDS)


def test_images_within_a_shard_are_shuffled() -> None:
    order = epoch_order([5] * 50, 0, 0, 16).tolist()
    assert order != sorted(order)


def test_epochs_follow_each_other() -> None:
    steps = steps_of(list(micro_batches(range(24))), per_step=3)
    assert [len(step) for step in steps] == [12] * 24
    for epoch in range(3):
        batches_of_keys = list(chain(*steps[8 * epoch : 8 * epoch + 8]))
        assert [key.position for key in batches_of_keys] == epoch_order(SHARDS, 0, epoch, 2).tolist()
        assert {key.epoch for key in batches_of_keys} == {epoch}


def test_an_epoch_drops_what_does_not_fill_a_step() -> None:
    steps = steps_of(list(micro_batches(range(4), micro=10, batch_size=40)), per_step=4)
    for epoch in (0, 1):
        positions = [key.position for key in chain(*steps[2 * epoch : 2 * epoch + 2])]
        assert len(set(positions)) == 80  # of 96


@pytest.mark.parametrize(("world", "micro"), [(2, 6), (2, 3), (3, 4), (4, 3), (12, 1)])
def test_the_ranks_take_turns_at_the_micro_batches_of_one(world: int, micro: int) -> None:
    parts = [micro_batches(range(16), micro, rank, world) for rank in range(world)]
    per_step = 12 // world // micro
    assert [len(part) for part in parts] == [len(list(part)) for part in parts] == [16 * per_step] * world
    assert [batch for turn in zip(*parts, strict=True) for batch in turn] == list(micro_batches(range(16), micro))


@pytest.mark.parametrize("start", [1, 7, 8, 13])
def test_a_run_that_goes_on_sees_the_same_tail(start: int) -> None:
    whole = list(micro_batches(range(24), rank=1, world=3))
    assert list(micro_batches(range(start, 24), rank=1, world=3)) == whole[start:]


def test_the_size_of_a_micro_batch_changes_no_step() -> None:
    orders = [list(chain(*micro_batches(range(16), micro=micro))) for micro in (1, 4, 12)]
    assert orders[0] == orders[1] == orders[2]


def test_another_seed_is_another_order() -> None:
    assert list(micro_batches(range(8))) != list(micro_batches(range(8), seed=1))


def test_a_loader_takes_them_as_they_come() -> None:
    class Echo(torch.utils.data.Dataset[SampleKey]):
        def __getitem__(self, key: SampleKey) -> SampleKey:
            return key

    batches = micro_batches(range(6), rank=1, world=3)
    loader = torch.utils.data.DataLoader(Echo(), batch_sampler=batches, collate_fn=list)
    assert list(loader) == list(batches)
    assert len(loader) == len(batches)
