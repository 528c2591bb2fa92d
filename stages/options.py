"""The options that commands share, and what they print when a run ends."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sare_core.engine.ranks import Rank
from sare_core.engine.runner import Outcome
from sare_core.engine.selection import ranges_text
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError
from stages.exits import exit_codes


def filled(param: typer.CallbackParam, value: str | None) -> str | None:
    """A path as it was given. Raises ConfigError: given but empty, which would mean the root or the current folder."""
    if value == "":
        raise ConfigError(f"--{param.name}: is empty; name a folder or URL.")
    return value


def path(text: str) -> Path:
    """A local path of an option. Raises ConfigError: empty."""
    if not text:
        raise ConfigError("an option that names a folder or file is empty; name one.")
    return Path(text)


Dataset = Annotated[str, typer.Option("--dataset", "-d", help="Name that `sare index` gave to the data.")]
AnyDataset = Annotated[str | None, typer.Option("--dataset", "-d", help="Only this dataset. Default: all.")]
Preset = Annotated[str, typer.Option("--preset", "-p", help="paper, mini, or the path of a settings file in YAML.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change a setting, e.g. reconstruct.strength=0.7. --plugin MODULE: see docs/extending.md."
    ),
]
RunName = Annotated[
    str | None,
    typer.Option("--run", help="A name for this run, shown beside hashes and in tables. Default: the preset."),
]
TrainedOn = Annotated[
    str | None, typer.Option("--trained-on", help="Dataset whose detector is used. Default: this one.")
]
Detector = Annotated[
    str | None,
    typer.Option("--detector", help="A trained detector: its folder or URL, or a fingerprint that `sare ls` shows."),
]
View = Annotated[
    str | None, typer.Option("--view", help="How the test images are viewed, e.g. jpeg:70. Default: as in training.")
]
OtherPreset = Annotated[
    str | None, typer.Option("--preset", "-p", help="As for train, or the detector's own with --detector. [mini]")
]
Shard = Annotated[str | None, typer.Option("--shard", help="Only these shards: 3, or 0-9, or 2,5,7. Default: all.")]
Work = Annotated[
    str,
    typer.Option("--work", envvar="SARE_WORK", callback=filled, help="Folder or URL for everything that is computed."),
]
Manifests = Annotated[
    str,
    typer.Option("--manifests", envvar="SARE_MANIFESTS", callback=filled, help="Folder or URL of the indexes."),
]


def source_name(preset: str | None, detector: str | None) -> str:
    """What a run's settings come from, as tables and `sare status` show it: a preset, or a detector."""
    return Path(detector.rstrip("/")).name if detector else preset or "mini"


def run_command(command: Callable[..., Any]) -> None:
    """Run a Typer app, or a stage's function, as this process's command."""
    with exit_codes():
        (command if isinstance(command, typer.Typer) else _app(command))(with_plugins(sys.argv[1:]))


def with_plugins(arguments: list[str]) -> list[str]:
    """`--plugin MODULE` as what it stands for, `--set plugins+=MODULE`, for every command that takes --set."""
    found = list[str]()
    for argument in arguments:
        option, equals, module = argument.partition("=")
        if option == "--plugin" and equals:
            found += ["--set", f"plugins+={module}"]
        elif found and found[-1] == "--plugin":
            found[-1:] = ["--set", f"plugins+={argument}"]
        else:
            found.append(argument)
    return found


def _app(command: Callable[..., Any]) -> typer.Typer:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    return app


def finish(outcome: Outcome, stage: str, where: str) -> None:
    """Say what came of a run. Exits with 1 when a shard that was asked for is not done."""
    rank = Rank()
    who = f"rank {rank.number}: " if rank.world > 1 else ""
    parts = [f"{len(outcome.done)} shards done"]
    parts += [f"{len(outcome.others)} by other processes"] if outcome.others else []
    parts += [f"{len(outcome.before)} were done before"]
    parts += [f"{outcome.failures} images failed (sare status shows why)"] if outcome.failures else []
    console.print(f"{who}{stage}: {', '.join(parts)}. {where}", soft_wrap=True)
    _name_shards(outcome.waiting, "is not done")
    if rank.first:  # which sees what the others failed at, too
        tell_failed(outcome)
    if not outcome.complete:
        raise typer.Exit(1)


def tell_failed(outcome: Outcome) -> None:
    """Name the shards that failed, why, and what to do."""
    if outcome.failed:
        _name_shards(outcome.failed, "failed")
        console.print(
            f"Failed shards: {ranges_text(sorted(outcome.failed))}. Fix what is named above, then run the same "
            "command again: it does these and whatever else is open.",
            soft_wrap=True,
        )


def _name_shards(shards: dict[int, str], what: str) -> None:
    for shard, why in list(shards.items())[:5]:
        console.print(f"  shard {shard} {what}: {why}", soft_wrap=True)
    if len(shards) > 5:
        console.print(f"  … and {len(shards) - 5} more")
