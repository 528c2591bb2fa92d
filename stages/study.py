"""What each part of the method adds, measured on a dataset that is indexed. Hours of work; run it again to go on.

    sare study --dataset miniature --preset mini --jobs 2
    sare study --dataset miniature --preset mini --only fairness        # minutes, needs no other stage
    sare study --dataset miniature --preset mini --only sweep --level coarse=models/a --level rich=models/b

Four parts. fairness: how far the files, pixel statistics and a plain image encoder get. sweep: strength, guidance and
caption on the validation images. delta: Δ of equation 7 with the image's caption, a wrong one and none. variants: ACC
and AUC of the detector against its controls (sare_core/study/variants.py). All with paired bootstrap intervals. The
stages do all the work, as commands with other settings; so `sare status` shows how far it is, and what is done is not
done again. Tables: Markdown and CSV under --out.
"""

from pathlib import Path
from typing import Annotated

import typer

from sare_core.engine.manifest import read_index
from sare_core.engine.terminal import console
from sare_core.study.dataset import Part, Study
from sare_core.study.parts import check_oracle, study_delta, study_fairness, study_sweep, study_variants
from stages.options import Dataset, Manifests, Preset, Set, Work, filled, path, run_command


def study(
    dataset: Dataset,
    preset: Preset = "mini",
    set_: Set = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    jobs: Annotated[int, typer.Option(min=1, help="Stages that run at once, one thread each.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds of each variant: train.seed from 0 on.")] = 5,
    out: Annotated[
        Path | None, typer.Option(parser=path, metavar="PATH", help="Folder for the tables. [benchmarks/DATASET]")
    ] = None,
    only: Annotated[list[Part] | None, typer.Option(help="Only these parts. Default: all.")] = None,
    classifier: Annotated[
        str | None, typer.Option(help="timm folder: the sweep counts the reconstructions that keep their class.")
    ] = None,
    oracle: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE",
            help="Captions that name what each image shows (as of captioner table): adds the variant `oracle`.",
            callback=filled,
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option(min=1, help="Draws of the noise an image: above 1 adds the variant `draws`, their mean map.")
    ] = 1,
    level: Annotated[
        list[str] | None, typer.Option(help="The sweep's captioners, name=folder. Default: the preset's own.")
    ] = None,
) -> None:
    """Measure what each part of the method adds: fairness of the data, sweep of settings, variants with intervals."""
    index = read_index(manifests, dataset)
    out = out or Path("benchmarks") / dataset
    study = Study(dataset, preset, list(set_ or []), work, manifests, jobs, index, out, oracle, draws)
    check_oracle(study)  # now, for a typo must not cost hours
    for part in Part:
        if part in (only or Part):
            console.rule(part)
            if part is Part.fairness:
                study_fairness(study)
            elif part is Part.sweep:
                study_sweep(study, classifier, list(level or []))
            elif part is Part.delta:
                study_delta(study)
            else:
                study_variants(study, seeds)


if __name__ == "__main__":
    run_command(study)
