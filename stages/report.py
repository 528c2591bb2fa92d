"""All that a run found, as one page to look at: pictures, tables, figures, settings.

    sare report --dataset mini --preset mini
    sare report --dataset forensynths --preset paper --trained-on genimage

Reads what the other stages left, and loads no model. Writes WORK/<dataset>/report/<fp of the predictions>/:
index.html, which needs nothing beside it; figures/*.png; tables/*.csv, the numbers behind tables and figures.
"""

from typing import Annotated

import typer

from sare_core.config import load_settings
from sare_core.engine.folders import check_run_name
from sare_core.engine.manifest import read_index
from sare_core.report.build import write_report
from stages.options import Dataset, Manifests, Preset, RunName, Set, TrainedOn, Work, console, filled, run_command

Out = Annotated[
    str | None, typer.Option("--out", callback=filled, help="Folder or URL of the report. Default: in the work folder.")
]


def report(
    dataset: Dataset,
    preset: Preset = "mini",
    set_: Set = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    trained_on: TrainedOn = None,
    out: Out = None,
    run_name: RunName = None,
) -> None:
    """Write a page of all that a run found: pictures, tables, figures, settings."""
    index, source = read_index(manifests, dataset), read_index(manifests, trained_on or dataset)
    settings = load_settings(preset, set_, source.about["layout"])
    run = None if run_name is None else check_run_name(run_name)
    written = write_report(settings, index, source, work, preset, run, out)
    console.print(written.result, soft_wrap=True)
    console.print(f"report: {written.page}", soft_wrap=True)


if __name__ == "__main__":
    run_command(report)
