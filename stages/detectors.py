"""The detectors by name: which paper each is of, what it needs, what in it is trained, and what an image costs.

    sare detectors
    sare detectors --preset paper
    sare detectors --plugin my_map --json

`--set detector.detector=NAME` chooses one. Nothing is computed, and no weights are loaded.
"""

import json
from typing import Annotated

import typer
from rich.table import Table

from sare_core.engine.terminal import console
from sare_core.plan.detectors import Entry, catalogue
from stages.options import Preset, Set, run_command


def detectors(
    preset: Preset = "mini",
    set_: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with all of its numbers.")] = False,
) -> None:
    """List the detectors: source, needs, what is trained, parameters, cost of an image under a preset."""
    found = catalogue(preset, set_)
    if as_json:
        typer.echo(json.dumps([entry._asdict() for entry in found], indent=1, ensure_ascii=False))
        return
    table = Table(title=f"Detectors, with the models and sizes of {preset}", box=None, pad_edge=False)
    for heading in ("name", "source", "needs", "trained"):
        table.add_column(heading, overflow="fold")
    for heading in ("million parameters", "of them trained", "GFLOP", "with its maps"):
        table.add_column(heading, justify="right")
    table.add_column("published weights")
    for entry in found:
        table.add_row(*_cells(entry))
    console.print(table)
    console.print("GFLOP: to score one image, without and with the captions and maps that are read for it.")
    for entry in found:
        if entry.problem:
            console.print(f"{entry.name}: not counted: {entry.problem}", soft_wrap=True)


def _cells(entry: Entry) -> list[str]:
    millions = [_number(value, 1e6) for value in (entry.parameters, entry.trained_parameters)]
    costs = [_number(value, 1e9) for value in (entry.flops, entry.with_maps)]
    needs, trained, released = ", ".join(entry.needs), ", ".join(entry.trained), "yes" if entry.released else "none"
    return [entry.name, entry.source, needs, trained, *millions, *costs, released]


def _number(value: int | None, unit: float) -> str:
    return "?" if value is None else f"{value / unit:,.3g}" if value < 100 * unit else f"{value / unit:,.0f}"


if __name__ == "__main__":
    run_command(detectors)
