"""Reads back what the work folder holds: is everything as it was recorded? Loads no model, needs no preset.

sare verify --dataset genimage
sare verify --reopen        # what is damaged is done again by the next run of its stage
"""

from typing import Annotated

import typer

from sare_core.engine.audit import indexed_folders, integrity_errors, mixed_libraries, reopen
from sare_core.engine.manifest import index_errors
from sare_core.engine.terminal import console
from stages.options import AnyDataset, Manifests, Work


def verify(
    dataset: AnyDataset = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    again: Annotated[bool, typer.Option("--reopen", help="Let the stages do broken shards again.")] = False,
) -> None:
    """Read back indexes, and what records promise: counts, fields, digests. Exits with 1 where one does not hold."""
    checked, broken, found = 0, [], 0  # type: ignore[var-annotated]
    faults: dict[str, list[str]] = {}  # of each index
    for folder, index in indexed_folders(work, manifests, dataset, broken):
        if folder.dataset not in faults:
            faults[folder.dataset] = list(index_errors(index))
            broken += faults[folder.dataset]
        if faults[folder.dataset]:  # what the outputs should hold is not known
            continue
        checked += 1
        for text, shard in list(integrity_errors(folder, index)):
            found += 1
            console.print(text, soft_wrap=True)
            if again and shard is not None and not reopen(folder, shard, text):
                broken.append(f"{folder.store.url}: shard {shard} is being worked on; verify again when it is done.")
        for line in mixed_libraries(folder):  # no error: each shard is what its record promises
            console.print(f"{folder.store.url}: {line}", soft_wrap=True)
    for line in broken:
        console.print(line, soft_wrap=True)
    found += len(broken)
    console.print(f"{checked} folders checked: " + (f"{found} integrity errors" if found else "all as recorded"))
    if found:
        raise typer.Exit(1)
