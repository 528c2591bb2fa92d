"""Images to verdicts, by a trained detector and its calibration (sare_core/detection).

    sare detect photo.jpg --detector DETECTOR
    sare detect photo.jpg --detector DETECTOR --report case.html --save-pictures pictures
    sare detect photos/ --detector DETECTOR --jsonl results.jsonl        # resumes; run it again to go on
    sare detect table.csv --detector DETECTOR --csv results.csv
    find photos -name '*.jpg' | sare detect - --detector owner/name --json -
    sare detect --schema

A table has a column `path`; a list is a .txt file with a path or URL a line. Without a calibration (sare calibrate)
every answer is `inconclusive`. docs/detect.md has the verdicts, the exit codes and the schema.
"""

from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from sare_core.detection import words
from sare_core.detection.calibration import find_calibration
from sare_core.detection.examining import DRAWS, ENCODINGS, Checks, Examiner
from sare_core.detection.outputs import has_results, opened, require_places
from sare_core.detection.page import Case
from sare_core.detection.pictures import with_pictures
from sare_core.detection.running import examined
from sare_core.detection.sources import are_files, sources
from sare_core.engine.progress import bar
from sare_core.engine.signals import stop_cleanly
from sare_core.engine.terminal import PlainConsole, console
from sare_core.errors import ConfigError
from sare_core.store.storage import Store, place_of
from stages import options

IN_FULL = 20  # images that are described one by one
NAMED = 10  # of more, so many likely_ai and so many that could not be read are named


def detect(
    images: Annotated[
        list[str] | None, typer.Argument(help="Files, folders, tables, lists or URLs; - reads paths from stdin.")
    ] = None,
    detector: options.Detector = None,
    calibration: Annotated[
        str | None, typer.Option(callback=options.filled, help="Its digest or file. Default: the detector's latest.")
    ] = None,
    json: Annotated[
        str | None,
        typer.Option(callback=options.filled, metavar="OUT", help="One JSON document. - is standard output."),
    ] = None,
    jsonl: Annotated[
        str | None,
        typer.Option(callback=options.filled, metavar="OUT", help="A line an image; an existing file is gone on with."),
    ] = None,
    csv: Annotated[
        str | None, typer.Option(callback=options.filled, metavar="OUT", help="A flat table. - is standard output.")
    ] = None,
    parquet: Annotated[
        str | None, typer.Option(callback=options.filled, metavar="OUT", help="The same as parquet.")
    ] = None,
    report: Annotated[
        str | None, typer.Option(callback=options.filled, metavar="OUT", help="One HTML file with pictures.")
    ] = None,
    save_pictures: Annotated[
        str | None, typer.Option(callback=options.filled, help="Folder for x̂ and maps as PNG.")
    ] = None,
    checks: Annotated[
        bool | None,
        typer.Option(help="Also score each image encoded anew and under other noise. Default: for single files."),
    ] = None,
    encoding: Annotated[
        list[str] | None, typer.Option(help=f"In place of {', '.join(ENCODINGS)}; may be given several times.")
    ] = None,
    draws: Annotated[int | None, typer.Option(min=1, help=f"Of the noise, the usual one included. [{DRAWS}]")] = None,
    view: options.View = None,
    set_: options.Set = None,
    work: options.Work = "work",
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a result, and exit.")] = False,
) -> None:
    """Examine images: a verdict in words, why, and what to look at; for programs JSON, CSV or parquet.

    Exits with 0 when every file was examined, whatever the verdicts; 1 when a file could not be read; 2 for wrong
    settings or input.
    """
    if schema:
        typer.echo((files("sare_core.detection") / "schema.json").read_text(encoding="utf-8"), nl=False)
        return
    if not images or detector is None:
        raise ConfigError("name images and a detector: sare detect photo.jpg --detector DETECTOR")
    if checks is False and (encoding or draws):
        raise ConfigError("--no-checks leaves out what --encoding and --draws ask for. Leave out one of them.")
    left_out = list[str]()
    wanted = list(sources(images, left_out.append))
    if not wanted:
        raise ConfigError(f"{', '.join(images)}: no images there.")
    places = {"--jsonl": jsonl, "--json": json, "--csv": csv, "--parquet": parquet, "--report": report}
    require_places(places, [*images, *(source.path for source in wanted)])
    if save_pictures and Path(save_pictures).is_file():
        raise ConfigError(f"--save-pictures {save_pictures}: is no folder. Name one; it is made if need be.")
    if jsonl and has_results(jsonl) and (report or save_pictures):
        raise ConfigError(
            f"{jsonl}: has results already, whose pictures are gone. With --report or --save-pictures name a new file."
        )
    told = PlainConsole(stderr=True) if "-" in (json, csv, parquet) else console
    from sare_core.pipeline import Detector  # torch: seconds

    scorer = Detector.from_pretrained(detector, work=work, view=view, overrides=set_ or [])
    found = find_calibration(scorer.folder.store, scorer.scoring, calibration)
    if are_files(images) if checks is None else checks:
        encoding, draws = encoding or list(ENCODINGS), draws or DRAWS
    examiner = Examiner(scorer, found, Checks(tuple(encoding or ()), draws or 1))

    case, pictures = Case() if report else None, save_pictures and Store(save_pictures)
    few, counts, alarms, unread = len(wanted) <= IN_FULL, Counter[str](), list[str](), list[str]()
    if few and found:
        told.print("\n".join(words.of_thresholds(found.thresholds)), soft_wrap=True)
    with (
        stop_cleanly(),
        opened(jsonl, json, csv, parquet) as outputs,
        bar(told, "detect", len(wanted), shown=not few) as advance,
    ):
        for batch in examined(wanted, examiner, outputs.before):
            batch = [with_pictures(pictures, each) for each in batch] if pictures else batch
            outputs.write(batch)
            if case is not None:
                case.add(batch)
            for result in (each.result for each in batch):
                counts.update([result.verdict, *(reason.code for reason in result.reasons)])
                alarms += [result.path] if result.verdict == "likely_ai" and len(alarms) < NAMED else []
                unread += (
                    [result.reasons[0].text] if result.reasons[0].code == "unreadable" and len(unread) < NAMED else []
                )
                if few:
                    told.print("\n".join(words.of_result(result)), soft_wrap=True)
            advance(len(batch))
    if case is not None and report:
        store, name = place_of(report)
        store.write(name, case.page(examiner).encode())
        told.print(f"report: {report}", soft_wrap=True)
    for line in [words.ABSENT] if few else words.of_many(counts, found, alarms, checked=examiner.scored > 1):
        told.print(line, soft_wrap=True)
    for line in left_out:
        told.print(line, soft_wrap=True)
    if count := counts["unreadable"]:
        told.print(f"{count:,} {'file' if count == 1 else 'files'} could not be read or decoded.")
        for line in [] if few else words.first_of(unread, count):
            told.print(line, soft_wrap=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    options.run_command(detect)
