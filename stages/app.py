"""The command `sare`: all stages, and what looks after their results."""

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from stages import (
    bench,
    calibrate,
    caption,
    compare,
    detect,
    detectors,
    duplicates,
    evaluate,
    export,
    figures,
    garbage,
    import_,
    index,
    ls,
    mini,
    options,
    pin,
    plan,
    reconstruct,
    report,
    retry,
    rm,
    serve,
    status,
    study,
    submit,
    tables,
    train,
    verify,
)

# By the help's panels: each command with one example.
COMMANDS: dict[str, list[tuple[Callable[..., Any], str]]] = {
    "Pipeline, in this order": [
        (index.index, "sare index --layout genimage --root /data/GenImage --name genimage"),
        (caption.caption, "sare caption --dataset genimage --preset paper"),
        (reconstruct.reconstruct, "sare reconstruct --dataset genimage --preset paper --shard 0-9"),
        (train.train, "sare train --dataset genimage --preset paper --run first-try"),
        (evaluate.evaluate, "sare evaluate --dataset forensynths --preset paper --trained-on genimage"),
        (compare.compare, "sare compare sare image --dataset genimage --baseline image"),
        (tables.tables, "sare tables 5 6 --dataset genimage --preset paper"),
        (figures.figures, "sare figures 4 5 --dataset genimage --preset paper"),
        (report.report, "sare report --dataset genimage --preset paper"),
    ],
    "Check images": [
        (detect.detect, "sare detect photo.jpg --detector DETECTOR --report case.html"),
        (calibrate.calibrate, "sare calibrate --detector DETECTOR --reals photos/ --fpr 0.01"),
        (serve.serve, "sare serve --detector DETECTOR --port 8000"),
    ],
    "Look": [
        (status.status, "sare status --dataset genimage"),
        (ls.ls, "sare ls --dataset genimage"),
        (detectors.detectors, "sare detectors --preset paper"),
        (import_.import_, "sare import fc_weights.pth --from univfd --out detectors/univfd"),
        (bench.bench, "sare bench --preset paper --quick"),
        (duplicates.duplicates, "sare duplicates --dataset genimage"),
        (plan.plan, "sare plan --dataset genimage --preset paper --gpus 8 --price 2.5"),
        (verify.verify, "sare verify --dataset genimage"),
        (export.export, "sare export --dataset genimage --preset paper --out maps --shard 3"),
    ],
    "Repair": [
        (retry.retry_failed, "sare retry-failed --dataset genimage --preset paper"),
        (garbage.gc, "sare gc --dataset genimage"),
        (rm.rm, "sare rm 0123456789ab"),
        (pin.pin, "sare pin paper --out my.yaml"),
    ],
    "Cluster": [
        (submit.submit, "sare submit all --dataset genimage --preset paper --gpus 64 --slurm partition=gpu"),
    ],
    "Scale model": [
        (mini.mini, "sare mini"),
        (study.study, "sare study --dataset miniature --preset mini --jobs 2"),
    ],
}


def command_name(function: Callable[..., Any]) -> str:
    """As it is typed: retry_failed is retry-failed, import_ is import."""
    return function.__name__.strip("_").replace("_", "-")


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Tell AI-generated images from real ones by their semantic-aware reconstruction error (SARE).",
    epilog="Begin with `make demo`, or with: sare index --help",
)
for panel, commands in COMMANDS.items():
    for command, example in commands:
        app.command(command_name(command), rich_help_panel=panel, epilog=f"Example: {example}")(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sare {_version('sare')} (Python {platform.python_version()}, torch {_version('torch')})")
        raise typer.Exit


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print versions and exit.")
    ] = False,
) -> None: ...


def main() -> None:
    options.run_command(app)


if __name__ == "__main__":
    main()
