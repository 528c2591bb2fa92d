"""The parts of a study on a dataset that is indexed: jobs that are open, then tables."""

import hashlib
from collections.abc import Iterable

import polars as pl

from sare_core.captioning import load_captioner
from sare_core.detectors.folder import trained as trained_checkpoint
from sare_core.engine.checkpoints import Checkpoint
from sare_core.engine.folders import Folder
from sare_core.engine.progress import bar
from sare_core.engine.ranks import Rank
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError, StageError
from sare_core.evaluation.results import read_outputs
from sare_core.evaluation.statistics import FOLDS, PER_CELL, Loader, carried_over, chosen_rows, pixel_scores
from sare_core.evaluation.tables import TRIVIAL
from sare_core.evaluation.trivial import trivial_predictions
from sare_core.images.sources import read_source, view_image
from sare_core.models.weights import fetch
from sare_core.store.storage import Store
from sare_core.study import fairness, tables
from sare_core.study.captions import to_parquet, wrong_captions
from sare_core.study.comparison import compare_detectors, compare_errors, gains
from sare_core.study.dataset import Part, Study
from sare_core.study.jobs import Job, run_jobs
from sare_core.study.number import BASE, NUMBER, NUMBER_DRAWS, with_number
from sare_core.study.sweep import sweep_results
from sare_core.study.variants import (
    DRAWS,
    DRAWS_UNCAPTIONED,
    FULL,
    NO_CAPTION,
    ORACLE,
    caption_levels,
    grid,
    reconstructed,
    table_captions,
    variants,
)


def precompute(study: Study, stage: str, all_changes: Iterable[list[str]], shards: list[int]) -> list[Folder]:
    """Captions or reconstructions of some shards for each set of changes, each folder once; what is open, as jobs."""
    digests, jobs, folders = study.index.digests, dict[str, Job](), list[Folder]()
    for changes in all_changes:
        graph = study.graph(*changes)
        folder = graph.captions if stage == "caption" else graph.reconstructions
        states = folder.states({shard: digests[shard] for shard in shards})
        folders.append(folder)
        if any(state.kind != "done" for state in states.values()):
            jobs[folder.fingerprint] = study.job(stage, changes, "--shard", ",".join(map(str, shards)))
    run_jobs(list(jobs.values()), study.jobs, console)
    return folders


def train_and_predict(study: Study, runs: dict[tuple[str, int], list[str]]) -> pl.DataFrame:
    """The test predictions of each variant and training seed, with the columns variant and seed."""
    best = {run: trained(study, changes) for run, changes in runs.items()}
    untrained = [run for run, checkpoint in best.items() if checkpoint is None]
    run_jobs([study.job("train", runs[run]) for run in untrained], study.jobs, console)
    best |= {run: trained(study, runs[run]) for run in untrained}

    shards = study.shards("test")
    digests, folders, todo = {shard: study.index.digests[shard] for shard in shards}, {}, []
    for run, changes in runs.items():
        checkpoint = best[run]
        assert checkpoint is not None, "train ends with a finished checkpoint or an error"
        folders[run] = study.graph(*changes).predictions(checkpoint)
        if any(state.kind != "done" for state in folders[run].states(digests).values()):
            todo.append(study.job("evaluate", changes))
    run_jobs(todo, study.jobs, console)
    return pl.concat(
        read_outputs(folder, shards).with_columns(variant=pl.lit(variant), seed=pl.lit(seed))
        for (variant, seed), folder in folders.items()
    )


def trained(study: Study, changes: list[str]) -> Checkpoint | None:
    """The best checkpoint of a detector whose training has come to its end."""
    folder = study.graph(*changes).detector_of(study.index)
    best = trained_checkpoint(folder)
    return best if best is not None and folder.store.exists(best.file) else None


def write_wrong_captions(study: Study, captioned: Folder, shards: list[int]) -> str:
    """The parquet for the variant `wrong`, below the work folder; its path."""
    said = read_outputs(captioned, shards).select("image_id", "caption")
    about = study.index.frame().select("image_id", "label", "class").unique("image_id")
    data = to_parquet(wrong_captions(said.join(about, on="image_id"), study.settings().seed))
    store = Store(f"{study.work}/{study.dataset}/study")
    name = f"wrong-captions-{hashlib.sha256(data).hexdigest()[:12]}.parquet"
    store.write(name, data)
    return str(store.local(name))


def check_oracle(study: Study) -> None:
    """Raises ConfigError: --oracle is no table of captions, or lacks an image, which would then leave all variants."""
    if study.oracle is None:
        return
    captioner = load_captioner(study.settings(*table_captions(study.oracle)).caption, None, "cpu")
    rows = study.index.frame().filter(pl.col("error").is_null()).select("image_id", "path").to_dicts()
    said = captioner.caption([], rows)
    if lacking := [row["path"] for row, caption in zip(rows, said, strict=True) if caption is None]:
        raise ConfigError(
            f"--oracle {study.oracle}: {len(lacking)} images have no caption there, the first is {lacking[0]}."
        )


def captioned_variants(study: Study) -> dict[str, list[str]]:
    """Settings of all variants; the captions that they read are made."""
    everything = study.shards("train", "val", "test")  # or the table of wrong captions would depend on the splits
    captioned, _ = precompute(study, "caption", [[], NO_CAPTION], everything)
    changes = variants(write_wrong_captions(study, captioned, everything), study.oracle, study.draws)
    precompute(study, "caption", [changes[name] for name in ("wrong", ORACLE) if name in changes], everything)
    return changes


def reconstruct(study: Study, changes: dict[str, list[str]], splits: list[str]) -> dict[str, Folder]:
    """Reconstructions of some splits, by variant."""
    return dict(zip(changes, precompute(study, "reconstruct", changes.values(), study.shards(*splits)), strict=True))


def made_from(folders: dict[str, Folder]) -> dict[str, str]:
    return {f"reconstructions of {name}": folder.fingerprint for name, folder in folders.items()}


def loader(study: Study) -> Loader:
    """Reads an image as the stages see it."""
    root, view = study.index.about["root"], study.settings().view
    return lambda row: view_image(read_source(root, row), row, view)


def pixel_strata(study: Study) -> tuple[pl.DataFrame | None, list[str]]:
    """A score of the test images that knows pixels and no content (None: none can be fitted), and what to say of it."""
    rows = chosen_rows(study.index.frame(), ["train", "test"])
    try:
        scores = carried_over(rows, loader(study), study.settings().train_subsets)
    except StageError as error:
        return None, [f"Not given within strata of the pixel statistics' score: {error}"]
    note = "Within tenths: a real and a fake are compared only if their pixel statistics look alike to a logistic "
    note += "regression fitted to the training split. –: there are no such pairs."
    return scores.select("image_id", score="logit"), [note]


def study_delta(study: Study) -> None:
    """delta.{md,csv}: Δ of equation 7 with each caption, and the AUC of the mean error alone; no training."""
    from sare_core.study.measures import read_errors

    settings = study.settings()
    changes = reconstructed(captioned_variants(study))
    if DRAWS in changes:
        changes[DRAWS_UNCAPTIONED] = [*changes[DRAWS], *NO_CAPTION]
    folders = reconstruct(study, changes, ["test"])
    errors = pl.concat(
        read_errors(folder, study.index, study.shards("test")).with_columns(variant=pl.lit(variant))
        for variant, folder in folders.items()
    )
    strata, notes = pixel_strata(study)
    results = compare_errors(errors, settings.train_subsets, settings.seed, strata_by=strata)
    shown = tables.error_tables(results, [*study.sample_notes(errors, len(folders)), *notes])
    tables.write(study.out, "delta", study.head(Part.delta, [], made_from(folders)), shown, results, console)


def caption_change(study: Study, *folders: Folder) -> pl.DataFrame:
    """By image_id of the test split, `change`: the mean error in the first of two folders less that in the second."""
    from sare_core.study.measures import read_errors

    with_it, without = (read_errors(folder, study.index, study.shards("test")).unique("image_id") for folder in folders)
    change = (pl.col("error") - pl.col("error_right")).alias("change")
    return with_it.join(without, on="image_id").select("image_id", change)


def study_variants(study: Study, seeds: int) -> None:
    """detectors.{md,csv}: ACC and AUC of the detector and of its controls, over training seeds."""
    settings = study.settings()
    changes = captioned_variants(study)
    folders = reconstruct(study, reconstructed(changes), ["train", "val", "test"])
    runs = {(v, seed): [*changes[v], f"train.seed={seed}"] for v in changes for seed in range(seeds)}
    predictions = train_and_predict(study, runs)
    numbers = {NUMBER: caption_change(study, folders[FULL], folders["uncaptioned"])}
    if DRAWS in folders:
        (without,) = reconstruct(study, {"": [*changes[DRAWS], *NO_CAPTION]}, ["test"]).values()
        numbers[NUMBER_DRAWS] = caption_change(study, folders[DRAWS], without)
    base, known = predictions.filter(pl.col("variant") == BASE), settings.train_subsets
    further = [with_number(base, change, known, settings.seed, name) for name, change in numbers.items()]
    predictions = pl.concat([predictions, *further])
    strata, notes = pixel_strata(study)
    results = compare_detectors(predictions, settings.train_subsets, settings.seed, strata_by=strata)
    notes = [*study.sample_notes(predictions, len(runs) + seeds * len(further)), *gains(results), *notes]
    shown = tables.detector_tables(results, seeds, notes)
    head = study.head(Part.variants, [f"--seeds {seeds}"], made_from(folders))
    tables.write(study.out, "detectors", head, shown, results, console)


def study_sweep(study: Study, classifier: str | None, named_levels: list[str]) -> None:
    """sweep.{md,csv}: Δ, AUC and the share that keeps its class, on validation images only."""
    from sare_core.study.measures import load_classifier, read_errors, read_kept

    shards = study.shards("val")
    if not shards:
        raise ConfigError(f"{study.dataset!r} has no validation images; index it with --holdout above 0.")
    levels = caption_levels(named_levels)
    classify = None if classifier is None else load_classifier(classifier)  # now, for a typo must not cost hours
    cells = grid(levels)
    precompute(study, "caption", [NO_CAPTION, *levels.values()], shards)
    changes = [["reconstruct.strength=0", *NO_CAPTION], *(cell.settings for cell in cells)]
    folders = precompute(study, "reconstruct", changes, shards)

    autoencoder, *errors = (read_errors(folder, study.index, shards) for folder in folders)
    kept = []
    if classify is not None:
        kept = [read_kept(folder, study.index, shards, classify) for folder in folders[1:]]
    results = sweep_results(cells, errors, autoencoder, kept, study.settings().seed)
    options = [f"--level {level}" for level in named_levels] + [f"--classifier {classifier}"] * bool(classifier)
    head = study.head(Part.sweep, options, {"reconstructions of strength 0": folders[0].fingerprint})
    tables.write(study.out, "sweep", head, tables.sweep_tables(results), results, console)


def study_fairness(study: Study) -> None:
    """fairness.{md,csv}: what gives fakes away without semantics. transfer.{md,csv}: from each generator to each."""
    settings, index, load = study.settings(), study.index, loader(study)
    frame, subsets, seed = index.frame(), settings.train_subsets, settings.seed
    test = chosen_rows(frame, ["test"])
    about = frame.filter(pl.col("split").is_in(["train", "val"]))
    if subsets is not None:
        about = about.filter(pl.col("subset").is_in(subsets))
    trivial = trivial_predictions(about, frame.filter(pl.col("split") == "test"))
    with bar(console, "pixel statistics", len(test)) as advance:
        scores = {"pixel statistics": pixel_scores(test, load, seed, advance)}
    notes = [f"Pixel statistics: logistic regression, {FOLDS}-fold within each subset's test split."]
    rows = chosen_rows(frame, ["train", "test"])
    try:
        scores["pixel statistics, carried over"] = carried_over(rows, load, subsets)
        notes.append("Carried over: fitted to the training subsets' training images.")
    except StageError as error:
        notes.append(f"Pixel statistics are not carried over: {error}")
    if trivial.predictions is None:
        notes.append(str(trivial.reason))
    else:
        scores = {TRIVIAL: trivial.predictions, **scores}
        notes.append("Trivial: trained on the training subsets' files, as in `sare evaluate`.")
    results = pl.concat(
        fairness.area_by_subset(part, seed, trained_on=subsets).select(pl.lit(what).alias("what"), pl.all())
        for what, part in scores.items()
    )
    notes.append(f"At most {PER_CELL:,} images of a subset, split and class are drawn.")
    head = study.head(Part.fairness, [], {})
    tables.write(study.out, "fairness", head, tables.fairness_tables(results, notes), results, console)

    if "train" not in rows["split"]:
        console.print("transfer: left out, since the dataset has no training images.")
        return
    encoder = study.graph().encoders["image_encoder"]
    embed = fairness.embedder(settings.detector, fetch(encoder), Rank().device())
    with bar(console, "embeddings", len(rows)) as advance:
        embeddings = fairness.embed_rows(rows, load, embed, advance)
    results = fairness.transfer(rows, embeddings, seed)
    counts = rows.filter(pl.col("split") == "train").group_by("subset", "label").len()["len"].to_list()
    notes = [
        f"Logistic regression on frozen embeddings of {settings.detector.image_encoder}.",
        f"Rows differ in training images: {min(counts):,} to {max(counts):,} of a subset and class.",
        notes[-1],
    ]
    tables.write(study.out, "transfer", head, tables.transfer_tables(results, notes), results, console)
