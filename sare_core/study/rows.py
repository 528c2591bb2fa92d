"""What a row of a published table or figure reads from the work folder, and the jobs that make what is not there."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from sare_core.config import Settings
from sare_core.detectors.folder import find_detector, open_detector
from sare_core.engine.folders import COMMANDS, Folder
from sare_core.engine.selection import ranges_text
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError
from sare_core.graph import Graph
from sare_core.study.jobs import Job, run_jobs
from sare_core.study.parts import Study
from sare_core.study.published import Kind, Published, Row
from sare_core.submission import Submission


class Open(NamedTuple):
    """A stage that a row still needs. makes: equal for jobs of which one is enough. images: that it goes over, None
    where it trains."""

    stage: str
    makes: str
    job: Job
    images: int | None


class Scored(NamedTuple):
    """Whole predictions of the test split, and the logit that the detector's held-out images chose."""

    folder: Folder
    threshold: float | None


class Found(NamedTuple):
    """A row as it stands. scored: of each training seed; maps: of the test split, where they are whole and count.

    missing: what is to be made first. problem: why that cannot be told, as of a model that is not to be had.
    """

    name: str
    changes: tuple[str, ...]
    settings: Settings
    scored: Sequence[Scored] = ()
    maps: Folder | None = None
    missing: Sequence[Open] = ()
    problem: str = ""

    @property
    def whole(self) -> bool:
        return not self.missing and not self.problem


def find(study: Study, published: Published, seeds: int = 1) -> list[Found]:
    """The rows of a table or figure. Raises ConfigError: no such setting, or detector to start from."""
    rows = [_find(study, published.kind, row, seeds) for row in published.rows]
    names = [row.name for row in rows]
    return [
        row._replace(name=f"{row.name} ({names[:place].count(row.name) + 1})") if row.name in names[:place] else row
        for place, row in enumerate(rows)
    ]


def _find(study: Study, kind: Kind, row: Row, seeds: int) -> Found:
    start = getattr(study.settings().detector, "start_from", None) if row.backbone else None
    settings = open_detector(start, study.work).settings() if start else study.settings(*row.changes)
    found = Found(row.name.format(settings), row.changes, settings)
    try:
        if not kind.of_detectors:
            maps, missing = _maps(study, row.changes)
            return found._replace(maps=maps, missing=missing)
        if start:
            scored, missing = _start(study, settings, start)
            return found._replace(scored=scored, missing=missing)
        of_seeds = [(f"train.seed={seed}",) for seed in range(seeds)] if seeds > 1 else [()]
        parts = [_detector(study, (*row.changes, *seed)) for seed in of_seeds]
        maps = _maps(study, row.changes)[0] if study.graph(*row.changes).maps_to_score else None
        scored, missing = [one for part, _ in parts for one in part], [one for _, part in parts for one in part]
        return found._replace(scored=scored, maps=maps, missing=missing)
    except ConfigError as error:  # the other rows are as they are
        return found._replace(problem=str(error))


def _maps(study: Study, changes: Sequence[str]) -> tuple[Folder | None, list[Open]]:
    """The maps of the test split, None unless all are there, and what makes them."""
    graph, index = study.graph(*changes), study.index
    shards, missing = graph.tested_shards(index), []
    for folder in (*graph.reconstructions.upstream.values(), graph.reconstructions):
        if left := sorted(folder.undone(index, shards)):
            stage = COMMANDS[folder.stage]
            job = study.job(stage, changes, "--shard", ranges_text(left))
            missing.append(Open(stage, folder.fingerprint, job, _images(study, left)))
    return None if missing else graph.reconstructions, missing


def _detector(study: Study, changes: Sequence[str]) -> tuple[list[Scored], list[Open]]:
    """A detector's predictions, none unless all are there, and what makes them."""
    graph, index = study.graph(*changes), study.index
    wanted = graph.detectors([])
    try:
        detector = find_detector(wanted, "")
    except ConfigError:
        detector = None
    if detector is not None:
        folder = graph.predictions(detector.best)
        if not folder.undone(index, graph.tested_shards(index)):
            return [Scored(folder, detector.threshold)], []
    submission = Submission(graph.settings, index, study.work, study.preset, per_task=len(index.shards))
    if not submission.trains():
        raise ConfigError(f"{study.dataset!r} has no training images for a detector of its own.")
    folders = {
        "caption": [stage.folder for stage in graph.caption_stages(index)],
        "reconstruct": [stage.folder for stage in graph.reconstruct_stages(index)],
    }
    missing = []
    for stage, ranges in submission.steps_of_all():
        left = sorted(chain.from_iterable(part or [] for part in ranges))
        job = study.job(stage, changes, *(["--shard", ranges_text(left)] if stage in folders else []))
        makes = " ".join(folder.fingerprint for folder in folders[stage]) if stage in folders else job.typed
        missing.append(Open(stage, makes, job, None if stage == "train" else _images(study, left)))
    return [], missing


def _start(study: Study, settings: Settings, reference: str) -> tuple[list[Scored], list[Open]]:
    """The predictions of the trained detector that SARE starts from, and what makes them."""
    detector = open_detector(reference, study.work)
    graph = Graph(settings, study.dataset, study.work)
    folder = graph.predictions(detector.best)
    if not (left := sorted(folder.undone(study.index, graph.tested_shards(study.index)))):
        return [Scored(folder, detector.threshold)], []
    job = study.stage_job("evaluate", "evaluate detector.start_from", "--detector", reference)
    return [], [Open("evaluate", job.typed, job, _images(study, left))]


def _images(study: Study, shards: list[int]) -> int:
    table = study.index.shards
    return int(table.filter(table["shard"].is_in(shards))["images"].sum())


def make(study: Study, rows: Iterable[Found]) -> None:
    """Run what the rows lack, stage by stage, each thing once."""
    missing = [each for row in rows for each in row.missing]
    for stage in COMMANDS.values():
        jobs = {each.makes: each.job for each in missing if each.stage == stage}
        run_jobs(list(jobs.values()), study.jobs, console)


def lines_of_missing(rows: Iterable[Found]) -> list[str]:
    """What rows lack, with the commands that make it, each once."""
    lines: dict[str, str] = {}
    for row in rows:
        if row.problem:
            lines.setdefault(row.problem, f"{row.name}: {row.problem}")
        for each in row.missing:
            images = "" if each.images is None else f" ({each.images:,} images)"
            lines.setdefault(each.makes, f"{row.name}{images}: {each.job.typed}")
    return list(lines.values())
