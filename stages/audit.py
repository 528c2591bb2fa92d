"""What lies in the work folder: status, verify, gc. None of them loads a model or needs the preset.

sare status
sare status --json
sare verify --dataset genimage
sare gc --delete
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Annotated

import typer
from rich.table import Table

from sare_core.engine.audit import (
    Summary,
    indexed_folders,
    integrity_errors,
    mixed_libraries,
    reopen,
    summarize,
    superseded,
)
from sare_core.engine.garbage import dead_spools, is_empty, orphaned_files, remove_orphans, replaced_indexes
from sare_core.engine.manifest import index_errors, read_index
from sare_core.engine.status import status_document
from sare_core.errors import ConfigError
from sare_core.store.storage import Store, spool_folder
from stages.options import Manifests, Work, console

AnyDataset = Annotated[str | None, typer.Option("--dataset", "-d", help="Only this dataset. Default: all.")]


def status(
    dataset: AnyDataset = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout and nothing else (sare_core/engine/status.py).")
    ] = False,
) -> None:
    """Per stage and folder: shards done, open, running, failed, stale (and why), images/s, ETA.

    Exits with 1 where a folder or an index cannot be read, which it names; unfinished shards are no error.
    """
    broken: list[str] = []
    summaries: list[Summary] = []
    for folder, index in indexed_folders(work, manifests, dataset, broken):
        try:
            summaries += [] if is_empty(folder) else [summarize(folder, index)]
        except ConfigError as error:
            broken.append(str(error))
    if as_json:
        print(json.dumps(status_document(work, summaries, broken), indent=1))
    else:
        for line in broken:
            console.print(line, soft_wrap=True)
        if not summaries and not broken:
            console.print(f"{work}: nothing has been computed yet.", soft_wrap=True)
        _show(summaries)
    if broken:
        raise typer.Exit(1)


def _show(summaries: list[Summary]) -> None:
    for name in dict.fromkeys(summary.folder.dataset for summary in summaries):
        table = Table(title=name, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for column in ("stage", "folder", "run"):
            table.add_column(column, no_wrap=column != "run", overflow="fold")
        for column in ("done", "open", "running", "failed", "stale", "img/s", "ETA"):
            table.add_column(column, justify="right", no_wrap=True)
        for summary in summaries:
            if summary.folder.dataset == name:
                runs = ", ".join(reversed(summary.runs[-3:])) + (", …" if len(summary.runs) > 3 else "")
                table.add_row(summary.folder.stage, summary.folder.fingerprint, runs, *_figures(summary))
        console.print(table)
    older = superseded(summaries)
    for summary in summaries:
        lines = [summary.note] if summary.note else []
        lines += [f"{count} shards {reason}" for reason, count in summary.reasons().most_common(5)]
        lines += [f"{count} images failed: {reason}" for reason, count in summary.failures.most_common(5)]
        lines += mixed_libraries(summary.folder)
        lines += [older[summary.folder.fingerprint]] if summary.folder.fingerprint in older else []
        for line in lines:
            console.print(f"{summary.folder.stage} {summary.folder.fingerprint}: {line}", soft_wrap=True)


def _figures(summary: Summary) -> list[str]:
    if summary.folder.stage == "detectors":
        return ["–"] * 7
    counts = [str(summary.count(kind)) for kind in ("done", "open", "running", "failed", "stale")]
    left = summary.eta is not None and any(state.kind != "done" for state in summary.states.values())
    eta = str(timedelta(seconds=round(summary.eta))) if left and summary.eta is not None else "–"
    return [*counts, f"{summary.rate:.1f}" if summary.rate else "–", eta]


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
                broken.append(f"{folder.store.url}: somebody works on shard {shard}; verify again when it is done.")
        for line in mixed_libraries(folder):  # no error: each shard is what its record promises
            console.print(f"{folder.store.url}: {line}", soft_wrap=True)
    for line in broken:
        console.print(line, soft_wrap=True)
    found += len(broken)
    console.print(f"{checked} folders read back: " + (f"{found} integrity errors" if found else "all as recorded"))
    if found:
        raise typer.Exit(1)


def gc(
    dataset: AnyDataset = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is listed.")] = False,
) -> None:
    """List what no record names and is older than an hour; remove it with --delete.

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
    verb = "removed" if delete else "that no record names (remove them with --delete)"
    console.print(f"{count} files, {total / 1e6:.1f} MB {verb}. Files of the last hour are left alone.", soft_wrap=True)
    if broken:
        raise typer.Exit(1)


def _sizes(store: Store, names: Iterable[str]) -> dict[str, int]:
    sizes = {}
    for name in names:
        with suppress(FileNotFoundError):  # another gc removed it
            sizes[name] = store.size(name)
    return sizes
