"""How far each stage is: shards done, open, running, failed, stale, and why. Loads no model, needs no preset.

sare status
sare status --json
"""

import json
from datetime import timedelta
from typing import Annotated

import typer
from rich.table import Table

from sare_core.engine.audit import Summary, indexed_folders, mixed_libraries, summarize, superseded
from sare_core.engine.garbage import is_empty
from sare_core.engine.status import KINDS, status_document
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError
from stages.options import AnyDataset, Manifests, Work


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
        for column in (*KINDS, "img/s", "ETA"):
            table.add_column(column, justify="right", no_wrap=True)
        for summary in summaries:
            if summary.folder.dataset == name:
                names = summary.about.names()
                runs = ", ".join(reversed(names[-3:])) + (", …" if len(names) > 3 else "")
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
    counts = [str(summary.count(kind)) for kind in KINDS]
    left = summary.eta is not None and any(state.kind != "done" for state in summary.states.values())
    eta = str(timedelta(seconds=round(summary.eta))) if left and summary.eta is not None else "–"
    return [*counts, f"{summary.rate:.1f}" if summary.rate else "–", eta]
