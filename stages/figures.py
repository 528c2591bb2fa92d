"""The paper's Figures 4 to 12 from one's own runs (sare_core/study/published.py; docs/evaluation.md).

    sare figures                                               # what there is
    sare figures 4 5 --dataset genimage --preset paper
    sare figures 8 --dataset genimage --preset paper --make-runs
    sare figures 7 --dataset mini --row 'blip=' --row 'mine=caption.captioner=server caption.model=null …'

Rows are settings over the preset, and runs that exist are reused. Where one is missing, the last lines say what makes
it, and the exit code is 1. Writes WORK/<dataset>/paper/figure-<n>.{png,csv}.
"""

from typing import Annotated

import typer

from sare_core.study.published import FIGURES
from stages import options, published
from stages.options import run_command


def figures(
    numbers: published.Numbers = None,
    dataset: published.Indexed = None,
    preset: options.Preset = "mini",
    set_: options.Set = None,
    row: published.Rows = None,
    make_runs: published.MakeRuns = False,
    jobs: published.Jobs = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Of figure 8: training seeds of each row.")] = 1,
    classifier: published.ClassifierFolder = None,
    out: published.Out = None,
    work: options.Work = "work",
    manifests: options.Manifests = "manifests",
) -> None:
    """Draw the paper's figures of results from your own runs, and say what is missing."""
    wanted, overrides, rows = numbers or [], set_ or [], row or []
    published.publish(
        "figure",
        FIGURES,
        wanted,
        dataset,
        preset,
        overrides,
        rows,
        make_runs,
        jobs,
        seeds,
        classifier,
        out,
        work,
        manifests,
    )


if __name__ == "__main__":
    run_command(figures)
