"""A killed training goes on to the weights of an undisturbed one."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sare_core.errors import SareError
from sare_core.miniature import fitting
from sare_core.miniature.fitting import Part, fit


class Killed(Exception):
    pass


def _train(folder: Path, steps: int = 12, kill_at: int | None = None, ema: float | None = 0.9) -> dict[str, Tensor]:
    torch.manual_seed(0)
    networks = {"one": nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.2)), "two": nn.Linear(3, 1)}
    parts = {"one": Part(networks["one"], 0.1, ema=ema), "two": Part(networks["two"], 0.1)}

    def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        if step == kill_at:
            raise Killed
        data = torch.from_numpy(rng.normal(size=(5, 4))).float() + torch.randn(5, 4)
        yield "two", networks["two"](networks["one"](data).detach()).square().mean()
        yield "one", (networks["two"](networks["one"](data)) - 1).square().mean()

    fit(folder, parts, steps, losses, seed=3, warmup=2)
    return {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state_dict().items()}


@pytest.mark.parametrize("kill_at", [1, 5, 11])
def test_goes_on_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int) -> None:
    whole = _train(tmp_path / "whole")
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Killed):
        _train(tmp_path / "cut", kill_at=kill_at)
    resumed = _train(tmp_path / "cut")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_finished_training_is_loaded(tmp_path: Path) -> None:
    first = _train(tmp_path / "run")
    again = _train(tmp_path / "run", kill_at=0)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_average_is_what_is_left(tmp_path: Path) -> None:
    averaged, last = _train(tmp_path / "a", ema=0.99), _train(tmp_path / "b", ema=None)
    assert not torch.equal(averaged["one.0.weight"], last["one.0.weight"])
    assert torch.equal(averaged["two.weight"], last["two.weight"])


def test_the_rate_stays_where_it_shall_not_fall(tmp_path: Path) -> None:
    moved = {}
    for fall in (True, False):
        network = nn.Linear(1, 1)
        nn.init.zeros_(network.weight)
        loss = lambda step, rng: iter([("line", network(torch.ones(1, 1)).mean())])  # noqa: E731, B023
        fit(tmp_path / str(fall), {"line": Part(network, 0.01, weight_decay=0.0)}, 10, loss, 0, 1, fall)
        moved[fall] = -float(network.weight.detach())
    assert moved[False] == pytest.approx(0.1, rel=0.02) and moved[True] < 0.07


def test_what_is_kept_is_in_half_precision(tmp_path: Path) -> None:
    trained = _train(tmp_path / "run")
    kept = load_file(tmp_path / "run" / "two.safetensors")
    assert all(value.dtype == torch.float16 for value in kept.values())
    assert torch.equal(trained["two.weight"], kept["weight"].float())
    assert not (tmp_path / "run" / "training.pt").exists()


def test_it_learns(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Linear(2, 1)

    def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        data = torch.from_numpy(rng.normal(size=(16, 2))).float()
        yield "line", (network(data) - data @ torch.tensor([[2.0], [-1.0]]) - 0.5).square().mean()

    fit(tmp_path, {"line": Part(network, 0.05, weight_decay=0.0)}, 400, losses, seed=0)
    assert torch.allclose(network.weight, torch.tensor([[2.0, -1.0]]), atol=1e-2)
    assert torch.allclose(network.bias, torch.tensor([0.5]), atol=1e-2)


def test_a_loss_that_is_not_finite_stops_it(tmp_path: Path) -> None:
    network = nn.Linear(1, 1)

    def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        yield "line", network(torch.tensor([[float("nan")]])).mean()

    with pytest.raises(SareError, match="line is not finite at step 0"):
        fit(tmp_path, {"line": Part(network, 0.1)}, 2, losses, seed=0)
