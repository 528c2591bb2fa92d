"""What has been computed, and what it was made from: a tree of captions, reconstructions, detectors, predictions.

    sare ls
    sare ls --dataset genimage

Each line ends with the runs that use the folder, and when the last of them began. `sare evaluate --detector` and
`sare rm` take the fingerprints.
"""

from typing import Annotated

import typer

from sare_core.engine.audit import folders
from sare_core.engine.garbage import is_empty
from sare_core.engine.listing import artifact_tree
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError
from sare_core.store.storage import Store
from stages.options import Work, run_command


def ls(
    dataset: Annotated[str | None, typer.Option("--dataset", "-d", help="Only this dataset. Default: all.")] = None,
    work: Work = "work",
) -> None:
    """List captions, reconstructions, detectors and predictions, each under what it was made from."""
    store = Store(work)
    if store.on_disk and not store.exists(""):
        raise ConfigError(f"{work}: no such folder. Name the one where the stages wrote (--work).")
    broken: list[str] = []
    for name in [dataset] if dataset else store.folders():
        if found := [folder for folder in folders(work, name, broken) if not is_empty(folder)]:
            console.print(artifact_tree(name, found))
        elif dataset:
            raise ConfigError(f"{work}: nothing has been computed for {dataset!r}.")
    for line in broken:
        console.print(line, soft_wrap=True)
    if broken:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(ls)
