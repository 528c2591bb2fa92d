"""How a command ends: errors as messages, and exit codes that tell what happened."""

import errno
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from sare_core.engine.ranks import Rank
from sare_core.engine.selection import ranges_text
from sare_core.engine.stage import Outcome
from sare_core.engine.terminal import PlainConsole, console
from sare_core.errors import ConfigError, SareError, Stopped


@contextmanager
def exit_codes() -> Iterator[None]:
    """What may end a run becomes a message and an exit code that tells.

    0: everything asked for is done. 1: something is not done (a shard failed or waits). 2: wrong settings or input.
    130, 143: stopped by SIGINT, SIGTERM; run the same command again.
    """
    # Of large images and damaged metadata: `images.decoding` says what is wrong with a file, by name and with the cure.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    except SareError as error:
        _complain(_said(error))
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except OSError as error:  # of a disk or this machine; those that a user meets often have words of their own
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        cure = "Free some" if full else "Raise the limit (ulimit -n)" if error.errno == errno.EMFILE else "Fix that"
        _complain(f"{where}{error.strerror or error} (errno {error.errno}). {cure} and run the same command again.")
        sys.exit(2 if full else 1)
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
        _complain(
            f"{str(error).partition('. ')[0].rstrip('.')}. Set less at once, by --set and this stage's "
            "caption.batch_size, reconstruct.batch_size, train.micro_batch_size or evaluate.batch_size, and run the "
            "same command again."
        )
        sys.exit(1)
    except Stopped as stop:
        _complain(f"{stop}; what was finished is kept. Run the same command again to go on.")
        sys.exit(128 + stop.signum)


def _out_of_memory(error: RuntimeError) -> bool:
    """Of the device. Who did not import torch cannot have met it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def _said(error: SareError) -> str:
    """An error's own text: from a worker of a loader it comes wrapped in the worker's traceback."""
    text = str(error)
    return text.rstrip().rpartition("\nsare_core.errors.")[2].partition(": ")[2] if text.startswith("Caught ") else text


def _complain(text: str) -> None:
    errors = PlainConsole(stderr=True)
    errors.print("error:", style="bold red", end=" ")
    errors.print(text, soft_wrap=True)


def finish(outcome: Outcome, stage: str, where: str) -> None:
    """Say what came of a run. Exits with 1 when a shard that was asked for is not done."""
    tell_outcome(outcome, stage, where)
    if not outcome.complete:
        raise typer.Exit(1)


def tell_outcome(outcome: Outcome, stage: str, where: str) -> None:
    """Say what came of a run."""
    rank = Rank()
    who = f"rank {rank.number}: " if rank.world > 1 else ""
    parts = [f"{len(outcome.done)} shards done" + f" in {outcome.seconds:.0f} s" * bool(outcome.done)]
    parts += [f"{len(outcome.others)} by other processes"] if outcome.others else []
    parts += [f"{len(outcome.before)} were done before"]
    parts += [f"{outcome.failures} images failed (sare status shows why)"] if outcome.failures else []
    console.print(f"{who}{stage}: {', '.join(parts)}. {where}", soft_wrap=True)
    tell_first([f"shard {shard} is not done: {why}" for shard, why in outcome.waiting.items()])
    if outcome.waiting:
        console.print("Run the stage before with the same settings, then this command again.", soft_wrap=True)
    if rank.first:  # which sees what the others failed at, too
        tell_failed(outcome)


def tell_failed(outcome: Outcome) -> None:
    """Name the shards that failed, why, and what to do."""
    if outcome.failed:
        tell_first([f"shard {shard} failed: {why}" for shard, why in outcome.failed.items()])
        console.print(
            f"Failed shards: {ranges_text(sorted(outcome.failed))}. Fix what is named above, then run the same "
            "command again: it does these and whatever else is open.",
            soft_wrap=True,
        )


def tell_first(lines: list[str]) -> None:
    """The first five of some lines, and how many more there are."""
    for line in lines[:5]:
        console.print(f"  {line}", soft_wrap=True)
    if len(lines) > 5:
        console.print(f"  … and {len(lines) - 5} more")
