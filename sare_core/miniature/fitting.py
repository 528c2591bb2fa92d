"""One training loop for all that the miniature world trains: seeded, checkpointed, and resumed to the bit.

What a step draws depends on (seed, step) alone, so a run that was killed and goes on ends with the weights of an
undisturbed one (same machine, same number of threads). The weights of a finished training are kept in half precision,
as they ship, and whatever is trained on top of them reads these.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sare_core.errors import SareError

CHECKPOINT_SECONDS = 60.0
CHECKPOINT = "training.pt"  # of a training that goes on


@dataclass
class Part:
    """A network and how it is optimised.

    ema: the decay of a moving average of the weights, which replaces them at the end; None keeps the last ones.
    """

    network: Any
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    ema: float | None = None
    optimizer: torch.optim.Optimizer = field(init=False)
    average: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        trained = list(self.network.requires_grad_(True).parameters())
        self.optimizer = torch.optim.AdamW(
            trained, self.learning_rate, betas=self.betas, weight_decay=self.weight_decay, fused=True
        )
        kept = self.network.state_dict() if self.ema is not None else {}
        self.average = {name: value.detach().clone() for name, value in kept.items()}

    def follow(self, step: int) -> None:
        if self.ema is None:
            return
        decay = min(self.ema, (1 + step) / (10 + step))
        for name, value in self.network.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def state(self) -> dict[str, object]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
        }

    def load(self, state: dict[str, dict[str, Tensor]]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]


Losses = Callable[[int, np.random.Generator], Iterator[tuple[str, Tensor]]]


def fit(
    folder: Path,
    parts: dict[str, Part],
    steps: int,
    losses: Losses,
    seed: int,
    warmup: int = 50,
    fall: bool = True,
) -> None:
    """Train `parts` for `steps`, or go on from where `folder` stands; the networks are left in eval mode.

    losses(step, rng): yields (part, loss) in turn; each loss is followed at once by a step of that part's optimizer. It
    may draw from `rng` and from torch's global generator; both are seeded by (seed, step).
    The learning rate rises linearly over `warmup` steps and falls as a cosine to 2 % at the end; with `fall` false it
    stays, as for the first part of a longer training.
    Raises SareError: a loss is not finite (the last checkpoint is kept), or `folder` is of another seed or length: its
    learning rate has followed another course.
    """
    folder.mkdir(parents=True, exist_ok=True)
    finished = {name: folder / f"{name}.safetensors" for name in parts}
    if not all(file.is_file() for file in finished.values()):
        _train(folder, parts, steps, losses, seed, warmup, fall)
        for name, file in finished.items():
            state = parts[name].network.state_dict()
            half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
            contiguous = {key: value.contiguous() for key, value in half.items()}
            save_file(contiguous, file.with_suffix(".partial"), {"steps": str(steps), "seed": str(seed)})
            file.with_suffix(".partial").replace(file)
        (folder / CHECKPOINT).unlink()
    for name, file in finished.items():
        with safe_open(file, "pt") as saved:
            about = saved.metadata()
            _check_same(folder, int(about["steps"]), int(about["seed"]), steps, seed)
            parts[name].network.load_state_dict({key: saved.get_tensor(key) for key in saved.keys()})  # noqa: SIM118
        parts[name].network.requires_grad_(False).eval()


def _check_same(folder: Path, had_steps: int, had_seed: int, steps: int, seed: int) -> None:
    if (had_steps, had_seed) != (steps, seed):
        raise SareError(
            f"{folder}: holds a training of {had_steps} steps with seed {had_seed}, and {steps} steps with seed {seed} "
            "are asked for; delete it, or name another work folder."
        )


def _train(
    folder: Path, parts: dict[str, Part], steps: int, losses: Losses, seed: int, warmup: int, fall: bool
) -> None:
    checkpoint = folder / CHECKPOINT
    start = 0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        _check_same(folder, saved["steps"], saved["seed"], steps, seed)
        for name, part in parts.items():
            part.load(saved["parts"][name])
        start = saved["step"]
    for part in parts.values():
        part.network.train()
    began = saved_at = time.monotonic()
    seen: dict[str, float] = {}
    for step in range(start, steps):
        torch.manual_seed((seed << 24) + step)
        rng = np.random.default_rng([seed, step])
        progress = (step - warmup) / max(1, steps - warmup)
        fallen = 0.02 + 0.49 * (1 + math.cos(math.pi * progress)) if fall else 1.0
        scale = (step + 1) / warmup if step < warmup else fallen
        for name, loss in losses(step, rng):
            if not torch.isfinite(loss):
                raise SareError(f"{folder}: the loss of {name} is not finite at step {step}.")
            part = parts[name]
            for group in part.optimizer.param_groups:
                group["lr"] = part.learning_rate * scale
            part.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(part.network.parameters(), 1.0)
            part.optimizer.step()
            part.follow(step)
            seen[name] = 0.95 * seen.get(name, float(loss.detach())) + 0.05 * float(loss.detach())
        last = step + 1 == steps
        if last or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
            states = {name: part.state() for name, part in parts.items()}
            _save(checkpoint, {"step": step + 1, "steps": steps, "seed": seed, "parts": states})
            saved_at = time.monotonic()
            line: dict[str, float] = {"step": step + 1, "of": steps, "seconds": round(saved_at - began)}
            line |= {name: round(value, 4) for name, value in seen.items()}
            print(f"{folder.name}: {json.dumps(line)}", flush=True)
            with (folder / "curve.jsonl").open("a") as curve:
                curve.write(json.dumps(line) + "\n")
    for part in parts.values():
        if part.ema is not None:
            part.network.load_state_dict(part.average)


def _save(path: Path, state: dict[str, object]) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)
