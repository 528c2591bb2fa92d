"""Parts of the training loop that depend on nothing but their arguments: rates, seeds, validation, the best epoch."""

import hashlib
import math
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from sklearn.metrics import roc_auc_score, roc_curve
from torch.nn.functional import binary_cross_entropy_with_logits

from sare_core.config.training import TrainSettings
from sare_core.engine.signals import check_stop
from sare_core.errors import ConfigError, StageError, Stopped
from sare_core.models import compiled
from sare_core.training.samples import SampleKey, Samples, loader

Entry = dict[str, float | None]  # accuracy, auc, loss and threshold of one epoch; None where undefined

# Source files may be away while a detector is trained that reads them (reconstruct.keep_source=false). An image that
# cannot be read after some tries is left out of its step: neither another image nor a blank one takes its place, and
# the others weigh what they always weigh. It is told, counted in the epoch's history, and tried again in the next
# epoch. More than a few make another data set than the one that the detector's folder names, so training stops.
MOST_UNREADABLE = 0.01  # of the images of an epoch
FEW_UNREADABLE = 2


def learning_rate(settings: TrainSettings, step: int, steps_per_epoch: int) -> float:
    """The rate of one step. cosine_annealing is DRCT's: once an epoch, to exactly 0 in t_max epochs, up again."""
    rate = settings.learning_rate * min(1.0, (step + 1) / max(settings.warmup_steps, 1))
    if settings.schedule == "constant":
        return rate
    annealing = settings.schedule == "cosine_annealing"
    part = step // steps_per_epoch / settings.t_max if annealing else step / (settings.epochs * steps_per_epoch)
    return rate * (1 + math.cos(math.pi * part)) / 2


def adamw(settings: TrainSettings, parameters: list[Any], device: torch.device) -> torch.optim.AdamW:
    """The optimizer; on a GPU torch's fused one, which is the same up to rounding."""
    fused = True if device.type == "cuda" else None  # None leaves it to torch, False would not
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=fused)


def speed_up(model: torch.nn.Module, settings: TrainSettings) -> None:
    """As tf32 and compile say: the first for all of this process, the second when the model is first called.

    Every shape has a graph of its own, so that what a run that goes on compiles does not depend on what it has seen.
    """
    torch.set_float32_matmul_precision("high" if settings.tf32 else "highest")
    if settings.compile:
        model.compile(dynamic=False, backend=compiled.BACKEND)


def micro_batch(settings: TrainSettings, processes: int) -> int:
    """Images a forward pass, which no number of processes changes: BatchNorm sees so many at a time.

    Raises ConfigError unless a step is of whole micro-batches, and of as many for each process.
    """
    size, micro = settings.batch_size, min(settings.micro_batch_size, settings.batch_size)
    if size % micro:
        raise ConfigError(
            f"train.batch_size={size} does not divide by train.micro_batch_size={micro}; change one of them."
        )
    if size // micro % processes:
        raise ConfigError(
            f"train.batch_size={size} makes {size // micro} micro-batches of train.micro_batch_size={micro}, which do "
            f"not divide by {processes} processes. Take a number of processes that divides {size // micro}; or change "
            "train.micro_batch_size, which makes another detector: BatchNorm then sees other batches."
        )
    return micro


def step_seed(seed: int, step: int, place: int) -> int:
    """Of torch's generator for micro-batch `place` of one step, on whichever process it is."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{step}:{place}".encode(), digest_size=7).digest())


def sync_loss_and_stop(accelerator: Accelerator, loss: torch.Tensor, unreadable: int) -> tuple[float, int, int]:
    """Where all processes meet at the end of a step: the mean of their losses, the sum of their unreadable images, and
    the signal that reached any, or 0.

    So all of them stop after the same step, and none is left waiting for one that has gone.
    """
    try:
        check_stop()
        signum = 0
    except Stopped as stop:
        signum = stop.signum
    mine = torch.stack([loss, torch.full_like(loss, unreadable), torch.full_like(loss, signum)])
    losses, missing, signals = accelerator.gather(mine[None]).unbind(1)
    return float(losses.mean()), int(missing.sum()), int(signals.max())


def check_readable(unreadable: int, images: int) -> None:
    """Raises StageError: of so many images of an epoch too many could not be read."""
    if unreadable > max(MOST_UNREADABLE * images, FEW_UNREADABLE):
        raise StageError(
            f"{unreadable} of {images} images could not be read in this epoch; the first ones are named above. "
            "Bring the files back, then run the same command again: it goes on from the last checkpoint."
        )


def validate(accelerator: Accelerator, model: Any, part: Samples, batch_size: int, workers: int) -> tuple[Entry, int]:
    """Accuracy at 0.5, AUC, loss and `best_threshold` on the held-out images, shared over the processes; None where
    undefined.

    With it, how many of them could not be read and are not in it. Raises StageError: too many.
    """
    batches = [range(len(part))[start : start + batch_size] for start in range(0, len(part), batch_size)]
    mine = batches[accelerator.process_index :: accelerator.num_processes]  # whole ones: a logit is the same anywhere
    batches_of_keys = [[SampleKey(0, position) for position in batch] for batch in mine]
    model.eval()
    pairs: list[tuple[float, float]] = []
    missing = 0
    with torch.no_grad():
        for batch, lost in loader(part, batches_of_keys, workers):
            missing += len(lost)
            if not len(batch["label"]):
                continue
            logits = accelerator.unwrap_model(model)({key: v.to(accelerator.device) for key, v in batch.items()})
            pairs += zip(logits.float().tolist(), batch["label"].tolist(), strict=True)
    pairs, missing = sorted(gather_object(pairs)), sum(gather_object([missing]))
    check_readable(missing, len(part))
    if not pairs:
        return {"accuracy": None, "auc": None, "loss": None, "threshold": None}, missing
    logits, labels = (torch.tensor(values) for values in zip(*pairs, strict=True))
    both = 0 < labels.sum() < len(labels)
    entry: Entry = {
        "accuracy": float(((logits > 0) == (labels > 0)).float().mean()),
        "auc": float(roc_auc_score(labels, logits)) if both else None,
        "threshold": best_threshold(labels.numpy(), logits.numpy()) if both else None,
        "loss": float(binary_cross_entropy_with_logits(logits, labels)),
    }
    return entry, missing


def best_threshold(labels: np.ndarray, logits: np.ndarray) -> float:
    """The logit above which to call an image fake, for the highest balanced accuracy on these images of both classes.

    Half-way to the next logit below, so that a fake just under the weakest one seen is still called fake.
    """
    false_alarms, hits, thresholds = roc_curve(labels, logits, drop_intermediate=False)  # fake from the threshold up
    best = int(np.argmax(hits - false_alarms))
    if best == 0:  # calling everything real is as good as it gets
        return float(logits.max())
    return float(thresholds[best] + thresholds[best + 1]) / 2


def best_epoch(history: list[Entry]) -> int:
    """Place of the epoch with the highest held-out accuracy; of equals the lower loss; without held-out, the last."""

    def rank(place: int) -> tuple[float, float, int]:
        accuracy, loss = history[place]["accuracy"], history[place]["loss"]
        return (-1.0, 0.0, place) if accuracy is None or loss is None else (accuracy, -loss, -place)

    return max(range(len(history)), key=rank)
