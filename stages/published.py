"""What `sare tables` and `sare figures` do alike."""

from itertools import chain
from typing import Annotated

import typer

from sare_core.engine.manifest import read_index
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError, SareError, StageError, needs_extra
from sare_core.evaluation.tables import to_terminal
from sare_core.store.storage import Store
from sare_core.study.dataset import Study
from sare_core.study.measures import load_classifier
from sare_core.study.publish import home, listing, unfit, write
from sare_core.study.published import Kind, Published, chosen, own_row
from sare_core.study.rows import find, lines_of_missing, make
from stages.options import filled

Numbers = Annotated[list[int] | None, typer.Argument(help="Of the paper. Default: list what there is.")]
Indexed = Annotated[str | None, typer.Option("--dataset", "-d", help="Name that `sare index` gave to the data.")]
Rows = Annotated[
    list[str] | None,
    typer.Option(
        "--row", help="NAME=SETTING SETTING …, in place of the paper's rows; with no setting the preset's own."
    ),
]
MakeRuns = Annotated[bool, typer.Option("--make-runs", help="Run the stages that rows still lack.")]
Jobs = Annotated[int, typer.Option(min=1, help="With --make-runs: stages that run at once, one thread each.")]
Out = Annotated[
    str | None,
    typer.Option("--out", callback=filled, help="Folder or URL. Default: WORK/<dataset>/paper."),
]
ClassifierFolder = Annotated[
    str | None, typer.Option("--classifier", help="timm folder: count the reconstructions that keep their class.")
]


def publish(
    word: str,
    published: tuple[Published, ...],
    numbers: list[int],
    dataset: str | None,
    preset: str,
    overrides: list[str],
    rows: list[str],
    make_runs: bool,
    jobs: int,
    seeds: int,
    classifier: str | None,
    out: str | None,
    work: str,
    manifests: str,
) -> None:
    """List them, or write those with some numbers, as far as runs are there. word: table or figure.

    Raises StageError, at the end: a row is missing, and what makes it is told; or one of them cannot be written.
    """
    wanted = chosen(word, published, numbers, [own_row(text) for text in rows])
    if not numbers and (rows or make_runs):
        raise ConfigError(f"--row and --make-runs: name the {word}s that they are for by their numbers.")
    if dataset is None:
        if numbers:
            raise ConfigError("--dataset NAME: name the data whose runs are to fill it.")
        console.print(to_terminal(listing(word, published, {}), console.width))
        return
    study = Study(dataset, preset, overrides, work, manifests, jobs, read_index(manifests, dataset))
    if not numbers:
        states = {each.number: find(study, each, seeds) for each in published if each.kind is not Kind.compare}
        console.print(to_terminal(listing(word, published, states), console.width))
        return
    with needs_extra("report"):  # before the stages, which take long
        import matplotlib as mpl  # noqa: F401
    classify = None if classifier is None else load_classifier(classifier)
    reasons = {each.number: unfit(study, each) for each in wanted}
    problems = [f"{word} {number}: {reason}" for number, reason in reasons.items() if reason]
    wanted = [each for each in wanted if not reasons[each.number]]
    found = {each.number: find(study, each, seeds) for each in wanted}
    store = Store(out or home(work, dataset))
    store.require_writable()
    if make_runs:
        try:
            make(study, chain.from_iterable(found.values()))
        except SareError as error:  # what is there can be shown all the same
            problems.append(str(error))
        found = {each.number: find(study, each, seeds) for each in wanted}
    for each in wanted:
        if not any(row.whole for row in found[each.number]):
            continue
        try:
            files, tables = write(study, each, found[each.number], store, f"{word}-{each.number}", classify)
        except SareError as error:
            problems.append(f"{word} {each.number}: {error}")
            continue
        for table in tables:
            console.print(to_terminal(table, console.width), "")
        console.print(f"{word} {each.number}: {', '.join(files)}", soft_wrap=True)
    missing = [row for each in wanted for row in found[each.number] if not row.whole]
    if missing:
        lines = "\n".join(f"  {line}" for line in lines_of_missing(missing))
        cure = " What makes them (--make-runs does it here; sare plan with the same --set says what that takes):"
        problems.append(f"rows that are missing: {len(missing)}.{cure * any(row.missing for row in missing)}\n{lines}")
    if problems:
        raise StageError("\n".join(problems))
