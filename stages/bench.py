"""How fast this device does the stages' work: images/s, TFLOP/s, the share of what its matrix products reach.

    sare bench --preset paper                                    # on a GPU: minutes; the full-size models
    sare bench --preset paper --quick --images 430000            # one minute: how long a data set will take
    sare bench --preset paper --batch-size 16 --batch-size 32 --out benchmarks/engine
    sare bench --preset paper --only attention                   # the U-Net's attention, by each of torch's kernels

The models have their full size and random weights; nothing is downloaded, and images are drawn.
"""

import shlex
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sare_core.config import load_settings
from sare_core.engine.ranks import Rank
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError
from stages.options import Preset, Set, filled, path, run_command


class Part(StrEnum):
    """What can be measured alone."""

    reconstruct = "reconstruct"
    caption = "caption"
    train = "train"
    attention = "attention"  # of the U-Net, by each of torch's kernels; only where it is asked for


class Speed(StrEnum):
    """Of reconstruct.speed."""

    exact = "exact"
    rounding = "rounding"
    quantised = "quantised"


def bench(
    preset: Preset = "paper",
    set_: Set = None,
    only: Annotated[list[Part] | None, typer.Option(help="Only these parts. Default: all but attention.")] = None,
    speed: Annotated[
        list[Speed] | None,
        typer.Option(help="Of reconstruct.speed. Default: the preset's; where that is exact, on a GPU rounding too."),
    ] = None,
    batch_size: Annotated[
        list[int] | None, typer.Option(min=1, help="Images at once. Default: 1, and the preset's.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(callback=filled, help="cpu, cuda or cuda:1. Default: as the stages choose.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A minute: one batch size, one step for all, reconstruct alone.")
    ] = False,
    images: Annotated[int | None, typer.Option(min=1, help="Say how long so many images take.")] = None,
    out: Annotated[
        Path | None, typer.Option(parser=path, metavar="PATH", help="Folder for the table, as .md and .csv.")
    ] = None,
) -> None:
    """Measure images/s and TFLOP/s of the full-size models on this device, with random weights."""

    def tell(what: str) -> None:
        console.print(f"bench: {what}", soft_wrap=True)

    settings = load_settings(preset, set_)
    import torch

    from sare_core.bench import attention, caption, reconstruct, table, timing, train
    from sare_core.evaluation.tables import to_terminal
    from sare_core.plan.estimate import multiple_of
    from sare_core.reconstruction import method_of

    where = device or Rank().device()
    try:
        if torch.empty(0, device=where).device.type not in ("cpu", "cuda"):
            raise RuntimeError("it is neither a CPU nor CUDA")
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {where}: not to be had here ({str(error).splitlines()[0]}).") from error
    cuda = torch.device(where).type == "cuda"
    own = Speed(settings.reconstruct.speed)
    speeds = [str(each) for each in speed or ([own, Speed.rounding] if cuda and own is Speed.exact else [own])]
    parts = only or ([Part.reconstruct] if quick else [each for each in Part if each is not Part.attention])
    if settings.caption.captioner != "blip" and Part.caption in parts:
        parts = [part for part in parts if part is not Part.caption]
        tell(f"caption is left out: only blip can be built without weights, not {settings.caption.captioner}")
    method = method_of(settings.reconstruct)
    if not method.passes(settings.reconstruct).whole and Part.attention in parts:
        parts = [part for part in parts if part is not Part.attention]
        tell(f"attention is left out: {method.name} runs no U-Net under these settings")
    if not parts:
        raise ConfigError("there is nothing to measure.")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # now, and not after all has been measured
    side = settings.reconstruct.longer_side // multiple_of(settings) * multiple_of(settings)

    def batches(usual: int) -> list[int]:
        return sorted(set(batch_size or ([usual] if quick else [1, usual])))

    def measured() -> Iterator[table.Row]:
        if Part.reconstruct in parts:
            usual = batches(settings.reconstruct.batch_size)
            yield from reconstruct.rows(settings.reconstruct, (side, side), usual, speeds, where, quick, tell)
        if Part.caption in parts:
            yield from caption.rows(settings.caption, batches(settings.caption.batch_size), where, tell)
        if Part.train in parts:
            yield from train.rows(settings, batches(settings.train.micro_batch_size), where, tell)
        if Part.attention in parts:
            for batch in batches(settings.reconstruct.batch_size):
                yield from attention.rows(settings.reconstruct, (side, side), batch, where, tell)

    rows = list(measured())
    dtypes = dict.fromkeys(row.dtype for row in rows)
    ceilings = {dtype: timing.matmul_ceiling(getattr(torch, dtype), where) for dtype in dtypes}
    notes = [
        "The preset's models at full size, with random weights; median of a few calls after one to warm up.",
        *(f"Ceiling, {dtype}: {flops / 1e12:.3g} TFLOP/s by a matrix product." for dtype, flops in ceilings.items()),
    ]
    if Part.reconstruct in parts:
        notes.append("Time: of encoder, U-Net and decoder. Of the peers' way also the PNG that it writes.")
    if Part.attention in parts:
        notes.append("Attention: of all steps of the U-Net, and nothing else; random numbers of the same shapes.")
    if Part.train in parts:
        notes.append("Loader: drawn images, JPEGs and PNGs in turn, read and augmented as in training.")
    if quick and Part.reconstruct in parts:
        notes.append("Quick: one step of the U-Net, times the steps, with one encoding and one decoding.")
    name = timing.device_name(where)
    shown = table.table(f"{name}, torch {torch.__version__}", rows, ceilings, notes)
    console.print(to_terminal(shown, console.width))
    ours = [row for row in rows if row.what.startswith("reconstruct")]
    if ours:
        best = max(ours, key=lambda row: row.rate)
        count = images or 100_000
        console.print(
            f"reconstruct: {count:,} images of {best.size} take {_time(count / best.rate)} on one such device "
            f"({best.what.removeprefix('reconstruct, ')}, batch {best.batch}). For your own data: sare plan --dataset "
            f"NAME --images-per-second {best.rate:.3g}",
            soft_wrap=True,
        )
    if out is not None:
        command = shlex.join(["sare", "bench", *sys.argv[2:]]) if sys.argv[1:2] == ["bench"] else "sare bench"
        console.print(f"table: {table.write(out, name, shown, rows, command)}, and .csv", soft_wrap=True)


def _time(seconds: float) -> str:
    hours = seconds / 3600
    return (
        f"{hours:,.0f} hours" if hours >= 10 else f"{hours:.1f} hours" if hours >= 1 else f"{seconds / 60:.0f} minutes"
    )


if __name__ == "__main__":
    run_command(bench)
