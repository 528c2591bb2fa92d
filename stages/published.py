"""What `sare tables` and `sare figures` do alike."""

from itertools import chain
from typing import Annotated

import typer

from sare_core.engine.manifest import read_index
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError, StageError, needs_extra
from sare_core.evaluation.tables import to_terminal
from sare_core.store.storage import Store
from sare_core.study.measures import load_classifier
from sare_core.study.parts import Study
from sare_core.study.publish import home, listing, write
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

    Raises StageError: a row is missing; what makes it is told.
    """
    wanted = chosen(published, numbers, [own_row(text) for text in rows])
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
    store = Store(out or home(work, dataset))
    found = {each.number: find(study, each, seeds) for each in wanted}
    if make_runs:
        make(study, chain.from_iterable(found.values()))
        found = {each.number: find(study, each, seeds) for each in wanted}
    for each in wanted:
        if whole := [row for row in found[each.number] if row.whole]:
            files, tables = write(study, each, whole, store, f"{word}-{each.number}", classify)
            for table in tables:
                console.print(to_terminal(table, console.width), "")
            console.print(f"{word} {each.number}: {', '.join(files)}", soft_wrap=True)
    missing = [row for each in wanted for row in found[each.number] if not row.whole]
    if missing:
        lines = "\n".join(f"  {line}" for line in lines_of_missing(missing))
        raise StageError(
            f"rows that are missing: {len(missing)}. What makes them (--make-runs does it here; sare plan with the "
            f"same --set says what that takes):\n{lines}"
        )
