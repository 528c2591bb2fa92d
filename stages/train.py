"""SARE maps, or for some detectors images alone, to a detector (sare_core/training).

sare train --dataset genimage --preset paper
sare train --dataset genimage --preset paper --set detector.detector=image      # needs no reconstructions
accelerate launch --num_processes 8 --multi_gpu -m stages.train --dataset genimage --preset paper
"""

import time
from typing import Annotated

import typer

from sare_core.config import load_settings
from sare_core.detectors import named_encoders
from sare_core.detectors.folder import finish
from sare_core.engine.checkpoints import read_checkpoint
from sare_core.engine.claims import LOST, Claims, read_claim
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import read_index
from sare_core.engine.ranks import Rank
from sare_core.engine.runner import POLL
from sare_core.engine.signals import release_on_preemption, stop_cleanly
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError, StageError
from sare_core.graph import Graph, on_reconstructions
from sare_core.miniature.foreign import refuse_foreign_images
from sare_core.training.loop import train_detector
from stages.options import Dataset, Manifests, Preset, RunName, Set, Work, filled, run_command


def train(
    dataset: Dataset,
    preset: Preset = "mini",
    set_: Set = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    reconstructions: Annotated[
        str | None,
        typer.Option(
            "--reconstructions", callback=filled, help="Train on these, by fingerprint; else as the settings say."
        ),
    ] = None,
    run_name: RunName = None,
) -> None:
    """Train the detector on the training split: its images, SARE maps or both."""
    index = read_index(manifests, dataset)
    settings = load_settings(preset, set_, index.about["layout"])
    settings = on_reconstructions(settings, reconstructions, dataset, work) if reconstructions else settings
    refuse_foreign_images([model for model, _ in named_encoders(settings.detector).values()], index)
    graph = Graph(settings, dataset, work)
    train_part, val_part = graph.training_data(index)
    folder = graph.detectors(train_part.inputs + val_part.inputs)
    models = {role: weights.model for role, weights in graph.encoders.items()}
    where = f"{folder.store.url} ({folder.describe(run_name, preset=preset, models=models)})"
    last, best = read_checkpoint(folder.store, "last"), read_checkpoint(folder.store, "best")
    steps = settings.train.epochs * (len(train_part) // settings.train.batch_size)
    if last is not None and (last.step > steps or last.finished != (last.step == steps)):
        raise ConfigError(
            f"{folder.store.path('last.json')}: says step {last.step}{', finished' * last.finished}, but there are "
            f"{steps} steps; delete it, train again."
        )
    if last is not None and last.finished and best is not None and folder.store.exists(best.file):
        finish(folder)
        console.print(f"detectors: trained before. {where}", soft_wrap=True)
        return
    if last is not None and last.finished:
        raise StageError(
            f"{folder.store.url}: trained, but its best checkpoint is gone. Delete last.json there, then train again."
        )
    project = folder.store.url if folder.store.on_disk else f"runs/{dataset}-{folder.fingerprint}"
    claims, started = Claims(folder.store), time.monotonic()
    try:
        with release_on_preemption(claims.free):
            if Rank().first:
                _take(claims, folder)
            train_detector(settings, graph.encoders, train_part, val_part, folder, project)
    finally:
        claims.free()
    best = read_checkpoint(folder.store, "best")
    if best is not None and Rank().first:
        took = f"trained in {time.monotonic() - started:.0f} s"
        said = f"best epoch {best.epoch}, {_describe(best.entry())}"
        console.print(f"detectors: {took}, {said}. {where}", soft_wrap=True)


def _take(claims: Claims, folder: Folder) -> None:
    """Claim the training. One that was killed elsewhere and is queued again finds its own claim, and waits it out."""
    if holder := read_claim(folder.store, 0):
        console.print(
            f"detectors: {holder.holder()} has claimed this training. It is taken over once that has been silent for "
            f"{LOST:.0f} s.",
            soft_wrap=True,
        )
    with stop_cleanly():
        if not claims.take_over(0, POLL):
            raise StageError(
                f"{folder.store.url}: another process trains this very detector, and lives; see sare status."
            )


def _describe(entry: dict[str, float | None]) -> str:
    if entry["accuracy"] is None:
        return "chosen as the last one: there are no held-out images"
    auc = "undefined" if entry["auc"] is None else f"{100 * entry['auc']:.2f} %"
    return f"held-out ACC {100 * entry['accuracy']:.2f} %, AUC {auc}"


if __name__ == "__main__":
    run_command(train)
