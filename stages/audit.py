"""What lies in the work folder: status, verify, gc. None of them loads a model or needs the preset.

sare status
sare verify --dataset genimage
sare gc --delete
"""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sare_core.audit import (
    Summary,
    dead_spools,
    indexed_folders,
    integrity_errors,
    orphaned_files,
    others_differ,
    reopen,
    summarize,
)
from sare_core.errors import ConfigError
from sare_core.manifest import index_errors
from stages.options import Manifests, Work, console

AnyDataset = Annotated[str | None, typer.Option("--dataset", "-d", help="Only this dataset. Default: all.")]


def status(dataset: AnyDataset = None, work: Work = "work", manifests: Manifests = "manifests") -> None:
    """Per stage and folder: shards done, open, running, failed, stale (and why), images/s, ETA.

    Exits with 1 where a folder or an index cannot be read, which it names; unfinished shards are no error.
    """
    broken: list[str] = []
    summaries: list[Summary] = []
    for folder, index in indexed_folders(work, manifests, dataset, broken):
        try:
            summaries.append(summarize(folder, index))
        except ConfigError as error:
            broken.append(str(error))
    for line in broken:
        console.print(line, soft_wrap=True, markup=False)
    if not summaries and not broken:
        console.print(f"{work}: nothing has been computed yet.", soft_wrap=True)
    _show(summaries)
    if broken:
        raise typer.Exit(1)


def _show(summaries: list[Summary]) -> None:
    for name in dict.fromkeys(summary.folder.dataset for summary in summaries):
        table = Table(title=name, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for column in ("stage", "folder", "preset"):
            table.add_column(column, no_wrap=True)
        for column in ("done", "open", "running", "failed", "stale", "img/s", "ETA"):
            table.add_column(column, justify="right")
        for summary in summaries:
            if summary.folder.dataset == name:
                preset = Path(summary.preset).name
                table.add_row(summary.folder.stage, summary.folder.fingerprint, preset, *_figures(summary))
        console.print(table)
    newest: dict[tuple[str, str], Summary] = {}
    for summary in sorted(summaries, key=lambda s: s.folder.notes().get("described", "")):
        newest[summary.folder.dataset, summary.folder.stage] = summary
    for summary in summaries:
        lines = [summary.note] if summary.note else []
        lines += [f"{count} shards {reason}" for reason, count in summary.reasons().most_common(5)]
        lines += [f"{count} images failed: {reason}" for reason, count in summary.failures.most_common(5)]
        latest = newest[summary.folder.dataset, summary.folder.stage]
        if latest is not summary:
            changed = "; ".join(others_differ(summary, latest)[:5])
            lines.append(f"other settings than {latest.folder.fingerprint}, the latest: {changed}")
        for line in lines:
            console.print(f"{summary.folder.stage} {summary.folder.fingerprint}: {line}", soft_wrap=True, markup=False)


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
            console.print(text, soft_wrap=True, markup=False)
            if again and shard is not None:
                reopen(folder, shard, text)
    for line in broken:
        console.print(line, soft_wrap=True, markup=False)
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
    """List what no record names; remove it with --delete. Exits with 1 where a folder or an index cannot be read."""
    count = size = 0
    broken: list[str] = []
    for folder, index in indexed_folders(work, manifests, dataset, broken):
        try:
            names = list(orphaned_files(folder, index))
        except ConfigError as error:  # what its records name is not known
            broken.append(str(error))
            continue
        for name in names:
            count, size = count + 1, size + folder.store.size(name)
            console.print(folder.store.path(name), soft_wrap=True, markup=False)
        if delete:
            folder.store.delete_many(names)
    for line in broken:
        console.print(line, soft_wrap=True, markup=False)
    for path in dead_spools():
        count, size = count + 1, size + path.stat().st_size
        console.print(str(path), soft_wrap=True, markup=False)
        if delete:
            path.unlink(missing_ok=True)
    verb = "removed" if delete else "that no record names (remove them with --delete)"
    console.print(f"{count} files, {size / 1e6:.1f} MB {verb}")
    if broken:
        raise typer.Exit(1)
