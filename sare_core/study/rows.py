"""What a row of a published table or figure reads from the work folder, and the jobs that make what is not there."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from sare_core.config import Settings
from sare_core.config.stored import changed
from sare_core.detectors.folder import find_detector, open_detector
from sare_core.engine.fingerprint import fingerprint
from sare_core.engine.folders import COMMANDS, Folder
from sare_core.engine.selection import ranges_text
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError
from sare_core.evaluation.compare import trained_on
from sare_core.evaluation.results import trained_generators
from sare_core.graph import Graph
from sare_core.study.dataset import Study
from sare_core.study.jobs import Job, run_jobs
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

    run: equal for rows that are one and the same, "" where that is not known. trained: the generators that its detector
    was trained on, () where not known. missing: what is to be made first. problem: why that cannot be told, as of a
    model that is not to be had. same_as: the row before it that is the same run.
    """

    name: str
    settings: Settings
    run: str = ""
    trained: tuple[str, ...] = ()
    scored: Sequence[Scored] = ()
    maps: Folder | None = None
    missing: Sequence[Open] = ()
    problem: str = ""
    same_as: str = ""

    @property
    def whole(self) -> bool:
        return not (self.missing or self.problem or self.same_as)


def find(study: Study, published: Published, seeds: int = 1) -> list[Found]:
    """The rows of a table or figure. seeds: of training, from 0 on; 1: the one of the settings.

    Raises ConfigError: no such setting, or detector to start from; settings and `seeds` both say the seed.
    """
    rows = list[Found]()
    for row in published.rows:
        one, names = _find(study, published.kind, row, seeds), [before.name for before in rows]
        name = f"{one.name} ({number})" if (number := names.count(one.name) + 1) > 1 else one.name
        if twin := next((before.name for before in rows if _are_same(before, one)), ""):
            one = one._replace(missing=(), same_as=twin)
        rows.append(one._replace(name=name))
    return rows


def _are_same(one: Found, other: Found) -> bool:
    predicted = [[each.folder.fingerprint for each in row.scored] if row.whole else [] for row in (one, other)]
    return any(mine and mine == theirs for mine, theirs in ((one.run, other.run), predicted))


def _find(study: Study, kind: Kind, row: Row, seeds: int) -> Found:
    usual = study.settings()  # first, for what is wrong with these is wrong with no row
    start = getattr(usual.detector, "start_from", None) if row.backbone else None
    try:
        settings = open_detector(start, study.work).settings() if start else study.settings(*row.changes)
    except ConfigError as error:
        name = row.name.replace("{{", "{").replace("}}", "}")
        raise ConfigError(f"row {name}: {str(error).removeprefix('--set ')}") from error
    if start:  # how to evaluate is no matter of its training
        settings = changed(settings, {"evaluate.near_copies": usual.evaluate.near_copies})
    other = settings.detector.detector if start and settings.detector.detector != "drct" else ""
    found = Found(other or row.name.format(settings), settings)  # one of another kind is not to be called DRCT
    if kind.of_detectors and seeds > 1 and _sets_seed((*study.overrides, *row.changes)) and not start:
        raise ConfigError(
            f"row {found.name}: --seeds {seeds} sets train.seed, and so does --set or --row. Leave one out."
        )
    try:
        if not kind.of_detectors:
            maps, missing = _maps(study, row.changes)
            return found._replace(run=study.graph(*row.changes).reconstructions.fingerprint, maps=maps, missing=missing)
        if start:
            detector = open_detector(start, study.work)
            trained = trained_on(detector, settings.model_dump(mode="json"), study.manifests)[1]
            scored, missing = _start(study, settings, start)
            return found._replace(trained=trained, scored=scored, missing=missing)
        found = found._replace(run=_run(study, row.changes), trained=trained_generators(settings, study.index))
        of_seeds = [(f"train.seed={seed}",) for seed in range(seeds)] if seeds > 1 else [()]
        parts = [_detector(study, (*row.changes, *seed)) for seed in of_seeds]
        maps = _maps(study, row.changes)[0] if study.graph(*row.changes).maps_to_score else None
        scored, missing = [one for part, _ in parts for one in part], [one for _, part in parts for one in part]
        return found._replace(scored=scored, maps=maps, missing=missing)
    except ConfigError as error:  # the other rows are as they are
        return found._replace(problem=str(error))


def _sets_seed(changes: Iterable[str]) -> bool:
    return any(change.partition("=")[0].strip() == "train.seed" for change in changes)


def _run(study: Study, changes: Sequence[str]) -> str:
    """What makes a detector and its predictions, whether or not they are there."""
    graph = study.graph(*changes)
    made_by = [graph.detectors([]).made_by, graph.settings.train_subsets, graph.settings.evaluate.fingerprint_fields()]
    return fingerprint({"made_by": made_by})


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
    lines: dict[str, str] = {}  # what is told, by what it is about
    names: dict[str, list[str]] = {}
    for row in rows:
        said = {row.problem: row.problem} if row.problem else {}
        said |= {row.same_as: f"the same run as {row.same_as}; its settings change nothing."} if row.same_as else {}
        for each in row.missing:
            images = "" if each.images is None else f"{each.images:,} images, "
            said[each.makes] = f"{images}{each.job.typed}"
        for key, text in said.items():
            lines.setdefault(key, text)
            names.setdefault(key, []).append(row.name)
    return [f"{', '.join(dict.fromkeys(names[key]))}: {text}" for key, text in lines.items()]
