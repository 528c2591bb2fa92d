"""A detector to predictions, one parquet a shard of the test split, and to tables of ACC and AUC.

    sare evaluate --dataset genimage --preset paper
    sare evaluate --dataset forensynths --preset paper --trained-on genimage       # Tables 3 and 4
    accelerate launch --num_processes 8 --multi_gpu -m stages.evaluate --dataset genimage --preset paper

Paper 4.1: ACC at 0.5 and AUC per subset, real and fake together, and their plain mean. A prediction: image_id, subset,
label, logit, score = sigmoid(logit). Once all shards are predicted, beside them: metrics.csv, tables.md. With them
comes the trivial detector, which sees only format, size, aspect and bytes.
"""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import polars as pl
import pyarrow as pa
import typer

from sare_core.config import Settings, load_settings
from sare_core.engine.checkpoints import Checkpoint, load_tensors, read_checkpoint
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index, read_index
from sare_core.engine.ranks import Rank
from sare_core.engine.runner import run
from sare_core.engine.shardfiles import ParquetWriter, TarReader
from sare_core.errors import ConfigError, SareError
from sare_core.evaluation.metrics import subset_metrics
from sare_core.evaluation.trivial import trivial_predictions, trivial_warnings
from sare_core.index.expected import is_release
from sare_core.models.weights import fetch
from sare_core.report.tables import TRIVIAL, Runs, result_tables, to_csv, to_markdown, to_terminal
from stages.options import (
    Dataset,
    Manifests,
    Preset,
    RunName,
    Set,
    Shard,
    Work,
    chosen_shards,
    console,
    finish,
    run_command,
)
from stages.reconstruct import folder_of as reconstructions_folder
from stages.train import detector_fields, detector_folder, weights_of

NAME, VERSION = "predictions", 1  # raise the version when the same checkpoint comes to give other logits
TrainedOn = Annotated[
    str | None, typer.Option("--trained-on", help="Dataset whose detector is used. Default: this one.")
]
SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("subset", pa.string()),
        ("label", pa.int8()),
        ("logit", pa.float32()),
        ("score", pa.float32()),
    ]
)


def folder_of(settings: Settings, dataset: str, work: str, checkpoint: Checkpoint) -> Folder:
    """The folder of predictions: the checkpoint's bytes, and the reconstructions that they are made from."""
    reconstructions = reconstructions_folder(settings, dataset, work)
    made_by = {
        "stage": NAME,
        "version": VERSION,
        "settings": settings.evaluate.fingerprint_fields(),
        "detector": detector_fields(settings),
        "weights": {role: weights.digest for role, weights in weights_of(settings, work).items()},
        "checkpoint": checkpoint.sha256[:16],
        "reconstructions": reconstructions.fingerprint,
    }
    return Folder(work, dataset, NAME, made_by, upstream=reconstructions)


class PredictStage:
    suffix, fields = ".parquet", tuple(SCHEMA.names)

    def __init__(self, settings: Settings, index: Index, folder: Folder, detector: Folder, best: Checkpoint) -> None:
        self.settings, self.index, self.folder, self.detector, self.best = settings, index, folder, detector, best

    def load(self, device: str) -> None:
        import torch

        from sare_core.detectors import build_detector

        self.device, self.dtype = device, getattr(torch, self.settings.evaluate.dtype)
        weights = weights_of(self.settings, self.folder.work)
        encoders = {f"{role}_dir": fetch(encoder) for role, encoder in weights.items()}
        model = build_detector(self.settings.detector, **encoders)
        tensors = load_tensors(self.detector.store, self.best)
        model.load_trained({name.removeprefix("model."): value for name, value in tensors.items()})
        self.model = model.to(device, self.dtype).eval()

    def begin(self, shard: int, source: Path | None) -> None:
        assert source is not None, "evaluate starts from the reconstructions of the shard"
        self.reader = TarReader(source)

    def open(self, path: Path) -> ParquetWriter:
        return ParquetWriter(path, SCHEMA)

    def keeps(self, row: dict[str, Any], sample: dict[str, Any]) -> bool:
        return False  # the map may be another

    def batches(self, rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        size = self.settings.evaluate.batch_size
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def read(self, row: dict[str, Any]) -> Any:
        from sare_core.training.samples import load_pair
        from sare_core.training.transforms import prepare

        pair = load_pair(self.reader, self.index.about["root"], row, self.settings.view)
        return prepare(*pair, self.settings.detector)

    def process(self, items: list[Any]) -> list[Any]:
        import torch

        image, sare = (torch.stack(part).to(self.device, self.dtype) for part in zip(*items, strict=True))
        with torch.no_grad():
            logits = self.model(image, sare).float()
        return torch.stack([logits, logits.sigmoid()], dim=1).tolist()

    def encode(self, row: dict[str, Any], item: Any, result: list[float]) -> dict[str, Any]:
        logit, score = result
        about = {key: row[key] for key in ("image_id", "subset", "label")}
        return about | {"logit": logit, "score": score}


class Results(NamedTuple):
    """What `evaluate` found: every prediction, the metrics of each detector, and the notes to stand under tables.

    name: of this run's detector among the `runs`. paper: the layout whose tables of the paper may stand beside them;
    None where the test images are another set than the paper's, or a small part of it.
    """

    predictions: pl.DataFrame
    name: str
    paper: str | None
    runs: Runs
    notes: list[str]


def read_results(
    settings: Settings, index: Index, trained_on: Index, folder: Folder, shards: list[int], run_name: str
) -> Results:
    """Join all predictions, check them against the index, and measure them and the trivial detector."""
    records = folder.records(shards).values()
    predictions = pl.concat([pl.read_parquet(folder.output(record), glob=False) for record in records])
    rows = index.frame()
    expected = rows.filter(pl.col("shard").is_in(shards))
    missing = expected.join(predictions, on=["image_id", "subset"], how="anti")
    if len(expected.join(predictions, on=["image_id", "subset"])) != len(predictions):
        raise SareError(f"{folder.store.url}: holds predictions that the index does not know; run sare verify.")
    unreadable = rows.filter(pl.col("error").is_not_null(), pl.col("split") == "test")

    notes = []
    for what, frame in (("failed in a stage (sare status shows why)", missing), ("could not be indexed", unreadable)):
        counts = frame.group_by("subset").len().sort("subset")
        if len(frame):
            per_subset = ", ".join(f"{count} of {subset}" for subset, count in counts.iter_rows())
            notes.append(f"{len(frame)} test images have no prediction because they {what}: {per_subset}.")
    if settings.view != "raw":
        notes.append(f"Images were looked at through {settings.view}; the trivial detector sees the files as they are.")

    about = trained_on.frame().filter(pl.col("split").is_in(["train", "val"]))
    if settings.train_subsets is not None:
        about = about.filter(pl.col("subset").is_in(settings.train_subsets))
    trivial = trivial_predictions(about, expected)
    name = f"{settings.detector.detector} · {run_name}"
    runs = {name: subset_metrics(predictions)}
    if trivial.predictions is not None:
        runs[TRIVIAL] = subset_metrics(trivial.predictions)
        notes += trivial_warnings(runs[TRIVIAL])
    elif trivial.reason:
        notes.append(trivial.reason)
    notes += [settings.note] if settings.note else []
    if predictions["label"].null_count() == len(predictions) > 0:
        notes.insert(0, "No labels: there is nothing to measure, the scores lie in the parquet files.")
    layout = index.about["layout"]
    paper = layout if is_release(layout, rows, "test") else None
    return Results(predictions, name, paper, runs, notes)


def write_tables(
    settings: Settings, index: Index, trained_on: Index, folder: Folder, shards: list[int], preset: str, run_name: str
) -> None:
    """Write the tables beside the predictions, and print them."""
    results = read_results(settings, index, trained_on, folder, shards, run_name)
    title = f"{folder.dataset}, preset {preset}"
    tables = result_tables(title, results.runs, results.paper, results.notes)
    folder.store.write("metrics.csv", to_csv(results.runs).encode())
    folder.store.write("tables.md", to_markdown(tables).encode())
    for table in tables:
        console.print(to_terminal(table, console.width))
    console.print(f"tables: {folder.store.path('tables.md')}, {folder.store.path('metrics.csv')}", soft_wrap=True)


def trained_detector(settings: Settings, source: Index, work: str, preset: str) -> tuple[Folder, Checkpoint]:
    """The detector's folder and its best checkpoint. Raises ConfigError unless it is trained to its end."""
    detector = detector_folder(settings, source, work)
    best, last = read_checkpoint(detector.store, "best"), read_checkpoint(detector.store, "last")
    if best is None or last is None or not last.finished:
        state = "is trained only in part" if last else "is not trained"
        raise ConfigError(
            f"{detector.store.url}: the detector {state}. Run: sare train --dataset {source.about['dataset']} "
            f"--preset {preset} (with the same --set)."
        )
    return detector, best


def tested_shards(settings: Settings, index: Index, wanted: str | None = None) -> list[int]:
    """The shards of the test split, or those that are `wanted` of them. Raises ConfigError: there are none."""
    shards = chosen_shards(index, ["test"], settings.train_subsets, wanted)
    if not shards:
        raise ConfigError(f"{index.about['dataset']!r} has no test split. `sare index` prints what it has.")
    return shards


def evaluate(
    dataset: Dataset,
    preset: Preset = "mini",
    set_: Set = None,
    shard: Shard = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    trained_on: TrainedOn = None,
    run_name: RunName = None,
) -> None:
    """Predict the test split and print ACC and AUC; beside the paper's where the images are the paper's."""
    index, source = read_index(manifests, dataset), read_index(manifests, trained_on or dataset)
    settings = load_settings(preset, set_, source.about["layout"])
    detector, best = trained_detector(settings, source, work, preset)
    folder = folder_of(settings, dataset, work, best)
    shards, wanted = tested_shards(settings, index), tested_shards(settings, index, shard)
    name = folder.describe(
        run_name,
        preset=preset,
        detector=detector.store.url,
        train_subsets=settings.train_subsets,
        splits=["test"],
    )
    outcome = run(PredictStage(settings, index, folder, detector, best), index, wanted, console)
    states = folder.states({shard: index.digests[shard] for shard in shards})
    # No rank waits for the others: whichever finds all shards done writes the tables, and the bytes are the same.
    if all(state.kind == "done" for state in states.values()) and (Rank().first or outcome.done):
        write_tables(settings, index, source, folder, shards, preset, name)
    finish(outcome, NAME, f"{folder.store.url} ({name})")


if __name__ == "__main__":
    run_command(evaluate)
