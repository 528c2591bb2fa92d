"""SARE maps to a detector.

    sare train --dataset genimage --preset paper
    accelerate launch --num_processes 8 --multi_gpu -m stages.train --dataset genimage --preset paper

Paper 3.3 and 4.1: binary cross-entropy on one logit, AdamW. The last checkpoint is where a killed run goes on, the best
one is the epoch with the highest accuracy on the held-out 10 % of the training images. Initial weights are drawn from
train.seed, steps from it and the epoch, augmentations from both and image_id: a run that goes on ends with the weights
of an undisturbed one. Micro-batches are the same on any number of processes, and so is the detector, up to the order in
which gradients are summed: a run may go on with another number.
"""

from collections.abc import Callable
from typing import Any

from sare_core.config import Settings, load_settings
from sare_core.detectors import code_version, detector_class
from sare_core.engine.checkpoints import (
    digest_of,
    load_tensors,
    pack_optimizer,
    read_checkpoint,
    save_checkpoint,
    unpack_optimizer,
)
from sare_core.engine.claims import LOST, Claims, read_claim
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index, read_index
from sare_core.engine.progress import bar
from sare_core.engine.ranks import Rank
from sare_core.engine.runner import POLL
from sare_core.engine.signals import leave_signals_to_the_parent, release_on_preemption, stop_cleanly
from sare_core.errors import ConfigError, StageError, Stopped
from sare_core.miniature.foreign import refuse_foreign_images
from sare_core.models.weights import Weights, fetch, resolve
from stages.options import Dataset, Manifests, Preset, RunName, Set, Work, chosen_shards, console, run_command
from stages.reconstruct import folder_of as reconstructions_folder

NAME, VERSION = "detectors", 1  # raise the version when the same settings come to give other weights


def weights_of(settings: Settings, work: str) -> dict[str, Weights]:
    """The pretrained encoders that the detector reads, by role. Raises ConfigError: not to be found."""
    detector = settings.detector
    named = {
        "image_encoder": (detector.image_encoder, detector.image_encoder_revision),
        "semantic_encoder": (detector.semantic_encoder, detector.semantic_encoder_revision),
    }
    return {role: resolve(*named[role], work) for role in detector_class(detector.detector).encoders}


def detector_fields(settings: Settings) -> dict[str, Any]:
    """What a fingerprint hashes of the detector: its settings, and of an own class its source."""
    code = code_version(settings.detector.detector)
    return settings.detector.fingerprint_fields() | ({"code": code} if code else {})


def folder_of(settings: Settings, dataset: str, work: str, inputs: list[str]) -> Folder:
    """The folder of a detector: settings, encoders, and the bytes of the shards that it is trained on."""
    reconstructions = reconstructions_folder(settings, dataset, work)
    made_by = {
        "stage": NAME,
        "version": VERSION,
        "settings": settings.train.fingerprint_fields(),
        "detector": detector_fields(settings),
        "weights": {role: weights.digest for role, weights in weights_of(settings, work).items()},
        "reconstructions": reconstructions.fingerprint,
        "inputs": digest_of(inputs)[:16],
    }
    return Folder(work, dataset, NAME, made_by, upstream=reconstructions)


def training_data(settings: Settings, index: Index, work: str) -> tuple[Any, Any]:
    """The training images, and the held-out ones. Raises StageError: not reconstructed; ConfigError: of one class."""
    from sare_core.training.samples import Pairs

    dataset = index.about["dataset"]
    trained = set(index.select(["train", "val"])["subset"])
    if odd := sorted(set(settings.train_subsets or ()) - trained) if trained else []:
        raise ConfigError(
            f"train_subsets names {', '.join(odd)}, but the training data of {dataset!r} are of "
            f"{', '.join(sorted(trained))}. Name some of these, or set train_subsets=null to take them all."
        )
    folder = reconstructions_folder(settings, dataset, work)
    parts = []
    for split, augment in (("train", settings.train.augment), ("val", None)):
        shards = chosen_shards(index, [split], settings.train_subsets, None)
        parts.append(Pairs(folder, index, shards, settings.detector, settings.view, augment, settings.train.seed))
    if set(parts[0].labels.tolist()) != {0, 1}:
        raise ConfigError(
            f"{dataset!r} has no training split with both real and fake images "
            f"(subsets: {', '.join(settings.train_subsets or ['all'])}). `sare index` prints what it has. "
            "To score images with a detector of another dataset: sare evaluate --trained-on NAME."
        )
    return parts[0], parts[1]


def detector_folder(settings: Settings, index: Index, work: str) -> Folder:
    """Where the detector for these settings and this index lies, trained or not."""
    train_part, val_part = training_data(settings, index, work)
    inputs = train_part.inputs + val_part.inputs
    return folder_of(settings, index.about["dataset"], work, inputs)


def train_detector(settings: Settings, train_part: Any, val_part: Any, folder: Folder, project: str) -> None:
    """Train until the last epoch, from the last checkpoint if there is one."""
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration, set_seed
    from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
    from torch.utils.data import DataLoader

    from sare_core.detectors import build_detector
    from sare_core.training.batchnorm import shared_statistics
    from sare_core.training.samples import MicroBatches, collate
    from sare_core.training.steps import (
        best_epoch,
        check_readable,
        learning_rate,
        micro_batch,
        step_seed,
        sync_loss_and_stop,
        validate,
    )

    plan, store = settings.train, folder.store
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=plan.mixed_precision,
        log_with="tensorboard",
        project_config=ProjectConfiguration(project_dir=project, logging_dir=project),
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],  # training.batchnorm sees to them
    )
    rank, world = accelerator.process_index, accelerator.num_processes
    micro = micro_batch(plan, world)
    mine = range(rank, plan.batch_size // micro, world)  # of a step's micro-batches
    accelerator.gradient_accumulation_steps = len(mine)
    steps_per_epoch = len(train_part) // plan.batch_size
    if steps_per_epoch == 0:
        raise ConfigError(
            f"train.batch_size={plan.batch_size} is more than the {len(train_part)} training images; lower it."
        )
    steps = plan.epochs * steps_per_epoch

    set_seed(plan.seed)
    model: Any = build_detector(
        settings.detector, **{f"{role}_dir": fetch(w) for role, w in weights_of(settings, folder.work).items()}
    )
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer: Any = torch.optim.AdamW(learning, lr=plan.learning_rate, weight_decay=plan.weight_decay)
    last = read_checkpoint(store, "last")
    tell_unreadable = _teller()
    step, history = (last.step, list(last.history)) if last else (0, [])
    loss_sum, unreadable = (last.loss_sum, last.unreadable) if last else (0.0, 0)  # of the epoch under way
    if last:
        tensors = load_tensors(store, last)
        model.load_trained({name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")})
        unpack_optimizer(optimizer, tensors)
    model, optimizer = accelerator.prepare(model, optimizer)
    if last and last.scaler and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(last.scaler)
    detector = accelerator.unwrap_model(model)
    accelerator.init_trackers("sare")

    def save(name: str, **tensors: Any) -> None:
        """Put a checkpoint in place; every process may call it, the first one writes."""
        if accelerator.is_main_process:
            state = {f"model.{key}": value for key, value in detector.trained_state().items()}
            scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
            facts: dict[str, Any] = {"step": step, "epoch": step // steps_per_epoch, "finished": step == steps}
            facts |= {"loss_sum": loss_sum, "unreadable": unreadable, "scaler": scaler}
            save_checkpoint(store, name, state | tensors, **facts, history=history, about=folder.made_by)

    batches = MicroBatches(train_part.shards, plan, plan.seed, range(step, steps), micro, rank, world)
    # Not given to accelerator.prepare: the sampler has dealt the images out to the ranks already.
    loader = iter(
        DataLoader(
            train_part,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=plan.workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=leave_signals_to_the_parent,
        )
    )
    with (
        stop_cleanly(),
        bar(
            console, "train", steps * plan.batch_size, accelerator.is_main_process, done=step * plan.batch_size
        ) as advance,
    ):
        try:
            signum = 0
            while step < steps:
                if signum:
                    raise Stopped(signum)
                rate = learning_rate(plan, step, steps_per_epoch)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                model.train()
                total, missing = torch.zeros((), device=accelerator.device), 0
                with shared_statistics(detector, accelerator) as note:
                    for place in mine:
                        # A fresh generator, so that dropout, if any, hangs on neither cuts nor number of processes.
                        torch.manual_seed(step_seed(plan.seed, step, place))
                        *batch, lost = next(loader)
                        image, sare, label = (part.to(accelerator.device, non_blocking=True) for part in batch)
                        missing += len(lost)
                        tell_unreadable(lost)
                        if len(lost) == micro:
                            raise StageError(f"none of the {micro} images of a batch could be read: {lost[0].reason}")
                        with accelerator.accumulate(model):
                            loss = cross_entropy(model(image, sare).float(), label.float()) * (len(label) / micro)
                            note()
                            accelerator.backward(loss)
                            optimizer.step()
                            optimizer.zero_grad()
                        total += loss.detach() / len(mine)
                step += 1
                loss_value, missing, signum = sync_loss_and_stop(accelerator, total, missing)
                loss_sum, unreadable = loss_sum + loss_value, unreadable + missing
                check_readable(unreadable, steps_per_epoch * plan.batch_size)
                accelerator.log({"train/loss": loss_value, "train/lr": rate}, step)
                epoch = (step - 1) // steps_per_epoch + 1
                advance(plan.batch_size, f"epoch {epoch}/{plan.epochs} loss {loss_value:.4f}")
                if step % steps_per_epoch == 0:
                    entry, missing = validate(accelerator, model, val_part, settings.evaluate.batch_size, plan.workers)
                    accelerator.log({f"val/{key}": value for key, value in entry.items() if value is not None}, step)
                    mean = loss_sum / steps_per_epoch
                    history.append(entry | {"epoch": epoch, "train_loss": mean, "unreadable": unreadable + missing})
                    loss_sum, unreadable = 0.0, 0
                    if best_epoch(history) == len(history) - 1:
                        save("best")
                if step % plan.checkpoint_steps == 0 or step % steps_per_epoch == 0:
                    save("last", **_optimizer_state(accelerator, optimizer))
        except Stopped:
            save("last", **_optimizer_state(accelerator, optimizer))
            raise
    accelerator.end_training()


def _teller(shown: int = 5) -> Callable[[list[Any]], None]:
    """Names the first unreadable images of a run; the history counts them all."""
    left = shown

    def tell(unreadable: list[Any]) -> None:
        nonlocal left
        for image in unreadable[:left]:
            console.print(f"train: left out {image.path}: {image.reason}", soft_wrap=True)
        left -= min(left, len(unreadable))

    return tell


def _optimizer_state(accelerator: Any, optimizer: Any) -> dict[str, Any]:
    return pack_optimizer(optimizer.optimizer) if accelerator.is_main_process else {}


def train(
    dataset: Dataset,
    preset: Preset = "mini",
    set_: Set = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    run_name: RunName = None,
) -> None:
    """Train the detector on the training split's SARE maps."""
    index = read_index(manifests, dataset)
    settings = load_settings(preset, set_, index.about["layout"])
    refuse_foreign_images([settings.detector.image_encoder, settings.detector.semantic_encoder], index)
    train_part, val_part = training_data(settings, index, work)
    folder = folder_of(settings, dataset, work, train_part.inputs + val_part.inputs)
    encoders = weights_of(settings, work)
    models = {role: weights.model for role, weights in encoders.items()}
    where = f"{folder.store.url} ({folder.describe(run_name, preset=preset, models=models)})"
    last, best = read_checkpoint(folder.store, "last"), read_checkpoint(folder.store, "best")
    steps = settings.train.epochs * (len(train_part) // settings.train.batch_size)
    if last is not None and (last.step > steps or last.finished != (last.step == steps)):
        raise ConfigError(
            f"{folder.store.path('last.json')}: says step {last.step}{', finished' * last.finished}, but there are "
            f"{steps} steps; delete it, train again."
        )
    if last is not None and last.finished and best is not None and folder.store.exists(best.file):
        console.print(f"detectors: trained before. {where}", soft_wrap=True)
        return
    if last is not None and last.finished:
        raise StageError(
            f"{folder.store.url}: trained, but its best checkpoint is gone. Delete last.json there, then train again."
        )
    project = folder.store.url if folder.store.on_disk else f"runs/{dataset}-{folder.fingerprint}"
    claims = Claims(folder.store)
    try:
        with release_on_preemption(claims.free):
            if Rank().first:
                _take(claims, folder)
            train_detector(settings, train_part, val_part, folder, project)
    finally:
        claims.free()
    best = read_checkpoint(folder.store, "best")
    if best is not None and Rank().first:
        chosen = best.history[-1]
        console.print(f"detectors: best epoch {chosen['epoch']:.0f}, {_describe(chosen)}. {where}", soft_wrap=True)


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
