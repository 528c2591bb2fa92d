"""The options that commands share, and how one is started."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sare_core.errors import ConfigError
from stages.exits import exit_codes


def filled(param: typer.CallbackParam, value: str | None) -> str | None:
    """What was given. Raises ConfigError: given but empty, which would mean the root, the current folder or none."""
    if value == "":
        raise ConfigError(f"--{param.name}: is empty; give a value or leave it out.")
    return value


def finite(param: typer.CallbackParam, value: float) -> float:
    """What was given. Raises ConfigError: inf, which a least value lets pass."""
    if not math.isfinite(value):
        raise ConfigError(f"--{str(param.name).replace('_', '-')} {value}: give a number that is not infinite.")
    return value


def path(text: str) -> Path:
    """A local path of an option; ~ is the home folder. Raises ConfigError: empty."""
    if not text:
        raise ConfigError("an option that names a folder or file is empty; name one.")
    return Path(text).expanduser()  # a shell leaves ~ as it is in --images=~/x


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
    typer.Option(
        "--detector",
        callback=filled,
        help="A trained detector: its folder or URL, or a fingerprint that `sare ls` shows.",
    ),
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
    """The name of what a run's settings come from: a preset, or a detector's folder."""
    return Path(detector.rstrip("/")).name if detector else preset or "mini"


def origin(preset: str | None, detector: str | None) -> str:
    """The same in words, for tables."""
    return f"{'detector' if detector else 'preset'} {source_name(preset, detector)}"


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
    if found and found[-1] == "--plugin":
        raise ConfigError("--plugin: name a module, as --plugin my_module (docs/extending.md).")
    return found


def _app(command: Callable[..., Any]) -> typer.Typer:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    return app
