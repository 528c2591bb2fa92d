"""Parts of the training loop that depend on nothing but their arguments: rates, seeds, validation, the best epoch."""

import hashlib
import math
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from sare_core.config import TrainSettings
from sare_core.data.pairs import Pairs, Ticket
from sare_core.errors import ConfigError
from sare_core.signals import leave_signals_to_the_parent

Entry = dict[str, float | None]  # accuracy, auc and loss of one epoch; None where undefined


def learning_rate(settings: TrainSettings, step: int, steps_per_epoch: int) -> float:
    """The rate of one step. cosine-bounce is DRCT's: per epoch, half a period of 5, down to exactly 0 and up again."""
    if settings.schedule == "constant":
        return settings.learning_rate
    bounce = settings.schedule == "cosine-bounce"
    part = step // steps_per_epoch / 5 if bounce else step / (settings.epochs * steps_per_epoch)
    return settings.learning_rate * (1 + math.cos(math.pi * part)) / 2


def micro_batch(settings: TrainSettings, processes: int) -> int:
    """Images a forward pass. Raises ConfigError unless all steps and processes get equal parts."""
    micro = min(settings.micro_batch_size, settings.batch_size // processes)
    if micro == 0 or settings.batch_size % (processes * micro):
        raise ConfigError(
            f"train.batch_size={settings.batch_size} does not divide by {processes} processes "
            f"of train.micro_batch_size={micro}; change one of them."
        )
    return micro


def step_seed(seed: int, step: int, rank: int) -> int:
    """Of torch's generator in one step of one process."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{step}:{rank}".encode(), digest_size=7).digest())


def validate(accelerator: Accelerator, model: Any, part: Pairs, batch_size: int, workers: int) -> Entry:
    """Accuracy at 0.5, AUC and loss on the held-out images, shared over the processes; None where undefined."""
    mine = range(accelerator.process_index, len(part), accelerator.num_processes)
    tickets = [[Ticket(0, p) for p in mine[start : start + batch_size]] for start in range(0, len(mine), batch_size)]
    model.eval()
    pairs: list[tuple[float, float]] = []
    with torch.no_grad():
        for image, sare, label in DataLoader(
            part, batch_sampler=tickets, num_workers=workers, worker_init_fn=leave_signals_to_the_parent
        ):
            logits = accelerator.unwrap_model(model)(image.to(accelerator.device), sare.to(accelerator.device))
            pairs += zip(logits.float().tolist(), label.tolist(), strict=True)
    pairs = sorted(gather_object(pairs))
    if not pairs:
        return {"accuracy": None, "auc": None, "loss": None}
    logits, labels = (torch.tensor(values) for values in zip(*pairs, strict=True))
    return {
        "accuracy": float(((logits > 0) == (labels > 0)).float().mean()),
        "auc": float(roc_auc_score(labels, logits)) if 0 < labels.sum() < len(labels) else None,
        "loss": float(binary_cross_entropy_with_logits(logits, labels)),
    }


def best_epoch(history: list[Entry]) -> int:
    """Place of the epoch with the highest held-out accuracy; of equals the lower loss; without held-out, the last."""

    def rank(place: int) -> tuple[float, float, int]:
        accuracy, loss = history[place]["accuracy"], history[place]["loss"]
        return (-1.0, 0.0, place) if accuracy is None or loss is None else (accuracy, -loss, -place)

    return max(range(len(history)), key=rank)
