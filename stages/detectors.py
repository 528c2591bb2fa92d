"""The detectors by name: which paper each is of, what it needs, what in it is trained, and what an image costs.

    sare detectors
    sare detectors --preset paper
    sare detectors --plugin my_map --json

`--set detector.detector=NAME` chooses one. Nothing is computed, and no weights are loaded.
"""

import json
from typing import Annotated

import typer

from sare_core.engine.terminal import console
from sare_core.evaluation.tables import ResultTable, to_terminal
from sare_core.plan.detectors import Entry, catalogue
from stages.options import Preset, Set, run_command

NUMBERS = ["million parameters", "of them trained", "GFLOP", "with its maps"]
COLUMNS = ["name", "source", "needs", "trained", *NUMBERS, "published weights"]


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
    notes = ["GFLOP: to score one image, without and with the captions and maps that are read for it."]
    title = f"Detectors, with the models and sizes of {preset}"
    console.print(to_terminal(ResultTable(title, COLUMNS, [_cells(entry) for entry in found], notes), console.width))
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
