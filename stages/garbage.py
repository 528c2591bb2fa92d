"""Finds, and with --delete removes, files that nothing refers to any more. Loads no model, needs no preset.

sare gc
sare gc --delete
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated

import typer

from sare_core.engine.audit import indexed_folders
from sare_core.engine.garbage import dead_spools, orphaned_files, remove_orphans, replaced_indexes
from sare_core.engine.manifest import read_index
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError
from sare_core.store.storage import Store, spool_folder
from stages.options import AnyDataset, Manifests, Work


def gc(
    dataset: AnyDataset = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is listed.")] = False,
) -> None:
    """List files older than an hour that nothing refers to; remove them with --delete.

    Exits with 1 where a folder or an index cannot be read, or another gc is at work.
    """
    count, total, broken = 0, 0, []  # type: ignore[var-annotated]

    def tell(store: Store, sizes: dict[str, int]) -> None:
        nonlocal count, total
        count, total = count + len(sizes), total + sum(sizes.values())
        for name in sizes:
            console.print(store.path(name), soft_wrap=True)

    for folder, _ in indexed_folders(work, manifests, dataset, broken):
        try:
            index = read_index(manifests, folder.dataset)
            sizes = _sizes(folder.store, orphaned_files(folder, index))
            if delete and sizes and not remove_orphans(folder, index, sizes):
                broken.append(f"{folder.store.url}: in use by another gc or rm, nothing removed; run gc again.")
            else:
                tell(folder.store, sizes)
        except ConfigError as error:
            broken.append(str(error))
    indexes, spool = Store(manifests), Store(str(spool_folder()))
    for name in [dataset] if dataset else indexes.folders():
        tell(indexes, sizes := _sizes(indexes, replaced_indexes(indexes, name)))
        if delete:
            indexes.delete_many(list(sizes))
    tell(spool, sizes := _sizes(spool, dead_spools(dataset)))
    if delete:
        spool.delete_many(list(sizes))
    for line in broken:
        console.print(line, soft_wrap=True)
    verb = "removed" if delete else "that nothing refers to (remove them with --delete)"
    console.print(f"{count} files, {total / 1e6:.1f} MB {verb}. Files of the last hour are kept.", soft_wrap=True)
    if broken:
        raise typer.Exit(1)


def _sizes(store: Store, names: Iterable[str]) -> dict[str, int]:
    sizes = {}
    for name in names:
        with suppress(FileNotFoundError):  # another gc removed it
            sizes[name] = store.size(name)
    return sizes
