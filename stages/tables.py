"""The paper's ablations, Tables 5 and 6, from one's own runs (sare_core/study/published.py; docs/evaluation.md).

    sare tables                                                # what there is
    sare tables --dataset genimage --preset paper              # and how much of it one's runs fill
    sare tables 6 --dataset genimage --preset paper
    sare tables 5 6 --dataset genimage --preset paper --make-runs --jobs 2
    sare tables 6 --dataset mini --row 'weak=reconstruct.guidance_scale=1' --row 'usual='

Rows are settings over the preset, and runs that exist are reused. Where one is missing, the last lines say what makes
it, and the exit code is 1. Writes WORK/<dataset>/paper/table-<n>.{csv,md,tex}.
"""

from typing import Annotated

import typer

from sare_core.study.published import TABLES
from stages import options, published
from stages.options import run_command


def tables(
    numbers: published.Numbers = None,
    dataset: published.Indexed = None,
    preset: options.Preset = "mini",
    set_: options.Set = None,
    row: published.Rows = None,
    make_runs: published.MakeRuns = False,
    jobs: published.Jobs = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds of each row: train.seed from 0 on.")] = 1,
    classifier: published.ClassifierFolder = None,
    out: published.Out = None,
    work: options.Work = "work",
    manifests: options.Manifests = "manifests",
) -> None:
    """Fill the paper's tables of ablations from your own runs, and say what is missing."""
    wanted, overrides, rows = numbers or [], set_ or [], row or []
    published.publish(
        "table",
        TABLES,
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
    run_command(tables)
