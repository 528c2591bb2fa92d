"""The training loop (paper 3.3 and 4.1): the detector's loss, AdamW.

The last checkpoint is where a killed run goes on, the best one is the epoch with the highest accuracy on the held-out
10 % of the training images. Initial weights are drawn from train.seed, steps from it and the epoch, augmentations from
both and image_id: a run that goes on ends with the weights of an undisturbed one. Micro-batches are the same on any
number of processes, and so is the detector, up to the order in which gradients are summed: a run may go on with another
number.
"""

from collections.abc import Callable
from typing import Any

from sare_core.config import Settings
from sare_core.engine.checkpoints import (
    load_tensors,
    pack_optimizer,
    read_checkpoint,
    save_checkpoint,
    unpack_optimizer,
)
from sare_core.engine.folders import Folder
from sare_core.engine.progress import bar
from sare_core.engine.signals import stop_cleanly
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError, StageError, Stopped
from sare_core.models.weights import Weights, fetch


def train_detector(
    settings: Settings, encoders: dict[str, Weights], train_part: Any, val_part: Any, folder: Folder, project: str
) -> None:
    """Train until the last epoch, from the last checkpoint if there is one."""
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration, set_seed

    from sare_core.detectors import build_detector
    from sare_core.detectors.folder import finish, start_of
    from sare_core.models.compiled import compiler_errors
    from sare_core.training.batchnorm import shared_statistics
    from sare_core.training.samples import MicroBatches, loader
    from sare_core.training.steps import (
        adamw,
        best_epoch,
        check_readable,
        learning_rate,
        micro_batch,
        speed_up,
        step_seed,
        sync_loss_and_stop,
        validate,
    )
    from sare_core.training.tracking import hyperparameters, installed_tracker

    plan, store = settings.train, folder.store
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=plan.mixed_precision,
        log_with=installed_tracker(plan.tracker),
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
    if plan.warmup_steps > steps and accelerator.is_main_process:
        console.print(
            f"note: train.warmup_steps={plan.warmup_steps} is more than the {steps} steps of this training, so the "
            "learning rate never gets as high as its schedule. Lower it, or train for more epochs."
        )

    set_seed(plan.seed)
    model: Any = build_detector(settings.detector, {role: fetch(encoder) for role, encoder in encoders.items()})
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer: Any = adamw(plan, learning, accelerator.device)
    last = read_checkpoint(store, "last")
    if start := start_of(settings.detector, folder.work):
        tensors = load_tensors(start.store, start.best)
        model.start({name.removeprefix("model."): tensor for name, tensor in tensors.items()})
    tell_unreadable = _teller()
    step, history = (last.step, list(last.history)) if last else (0, [])
    loss_sum, unreadable = (last.loss_sum, last.unreadable) if last else (0.0, 0)  # of the epoch under way
    if last:
        tensors = load_tensors(store, last)
        model.load_trained({name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")})
        unpack_optimizer(optimizer, tensors)
    speed_up(model, plan)
    model, optimizer = accelerator.prepare(model, optimizer)
    if last and last.scaler and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(last.scaler)
    detector = accelerator.unwrap_model(model)
    accelerator.init_trackers("sare", hyperparameters(settings))

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
    loaded = iter(loader(train_part, batches, plan.workers))
    with (
        compiler_errors(),
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
                        parts, lost = next(loaded)
                        batch = {key: part.to(accelerator.device, non_blocking=True) for key, part in parts.items()}
                        missing += len(lost)
                        tell_unreadable(lost)
                        if len(lost) == micro:
                            raise StageError(f"none of the {micro} images of a batch could be read: {lost[0].reason}")
                        with accelerator.accumulate(model):
                            loss = detector.loss(model(batch).float(), batch) * (len(batch["label"]) / micro)
                            note()
                            accelerator.backward(loss)
                            if plan.max_grad_norm is not None and accelerator.sync_gradients:
                                accelerator.clip_grad_norm_(learning, plan.max_grad_norm)
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
    if accelerator.is_main_process:
        finish(folder)
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
