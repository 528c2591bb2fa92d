"""Weights that another project has published to a detector's folder (sare_core/importing).

    sare import 13_acc0.9664.pth --from drct --out detectors/drct --preset paper
    sare evaluate --dataset genimage --detector detectors/drct

Every tensor of the file is accounted for; the file itself runs no code.
"""

import shlex
from typing import Annotated

import typer

from sare_core.engine.terminal import console
from sare_core.errors import ConfigError
from stages.options import Preset, Set, Work, run_command

PROJECTS = ("c2p-clip", "de_fake", "dire", "drct", "gramnet", "univfd")


def import_(
    file: Annotated[str, typer.Argument(help="A file of weights: .pth, .pt or .safetensors.")],
    project: Annotated[str, typer.Option("--from", help=f"Whose: {', '.join(PROJECTS)}.")],
    out: Annotated[str, typer.Option(help="The detector's folder, to be made.")],
    preset: Preset = "paper",
    set_: Set = None,
    work: Work = "work",
) -> None:
    """Make a detector of weights that another project has published."""
    from sare_core.importing.folder import import_detector  # torch: seconds

    if project not in PROJECTS:
        raise ConfigError(f"--from {project}: choose one of {', '.join(PROJECTS)}.")
    found = import_detector(project, file, out, preset, set_ or (), work)
    about = f"; {found.encoder}" if found.encoder else ""
    console.print(f"{out}: detector {found.detector}, {found.parameters:,} numbers of {file}{about}.", soft_wrap=True)
    if found.differs:
        console.print(f"Mind: {found.differs}", soft_wrap=True)
    console.print(f"Score with it: sare evaluate --dataset … --detector {shlex.quote(out)}", soft_wrap=True)


if __name__ == "__main__":
    run_command(import_)
