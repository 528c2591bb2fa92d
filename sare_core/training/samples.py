"""The images and maps of a dataset's shards, for training and prediction: which there are, in what order, and one.

Counts come from records, the order of an epoch from (seed, epoch) alone: so lengths are exact, every process knows its
part without asking, and a run that goes on sees what an undisturbed one would have seen.
"""

import io
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import stamina
import torch
from PIL import Image
from torch.utils.data import default_collate

from sare_core.config.detectors import DetectorSettings
from sare_core.config.training import AugmentSettings, TrainSettings
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.engine.outputs import checked_output
from sare_core.engine.shardfiles import TarReader
from sare_core.errors import ImageError, NotReached, StageError, TransientError
from sare_core.images.sources import read_source, view_image
from sare_core.store.storage import Store
from sare_core.training.transforms import prepare, sample_generator

Pair = tuple[Image.Image, Image.Image]
_NEEDED = ["image_id", "path", "sha256", "extension", "label", "shard"]


class SampleKey(NamedTuple):
    """Which row to load, and in which epoch: all that a loader's worker needs to know."""

    epoch: int
    position: int


class Unreadable(NamedTuple):
    """An image whose source file cannot be read now, and why."""

    path: str
    reason: str


Item = tuple[torch.Tensor, torch.Tensor, float]


class Pairs(torch.utils.data.Dataset[Item | Unreadable]):
    """The labelled images of some shards of reconstructions, by position.

    In order of shard and image_id; images that failed on the way are not among them. The rows are kept as an Arrow
    table: as Python objects, hundreds of thousands of them would be copied into every worker, page by page.

    labels, shards: (n,) of each image.
    inputs: SHA-256 of each shard's file, sorted.
    Raises StageError when a shard has not been reconstructed yet.
    """

    def __init__(
        self,
        folder: Folder,
        index: Index,
        shards: list[int],
        settings: DetectorSettings,
        view: str,
        augment: AugmentSettings | None = None,
        seed: int = 0,
    ) -> None:
        self.settings, self.augment, self.seed = settings, augment, seed
        self.url, self.root, self.view = folder.store.url, index.about["root"], view
        states = folder.states({shard: index.digests[shard] for shard in shards})
        if missing := [shard for shard, state in states.items() if state.kind != "done"]:
            raise StageError(
                f"{len(missing)} of {len(shards)} shards are not reconstructed, the first is {missing[0]} "
                f"({states[missing[0]].why or states[missing[0]].kind}). Run `sare reconstruct` with these settings."
            )
        records = {shard: record for shard, record in folder.records().items() if shard in states}
        failed = {(shard, failure.image_id) for shard, record in records.items() for failure in record.failures}
        frame = index.frame().filter(pl.col("shard").is_in(shards), pl.col("label").is_not_null())
        lost = pl.DataFrame(sorted(failed), {"shard": pl.Int32, "image_id": pl.String}, orient="row")
        frame = frame.select(_NEEDED).join(lost, on=["shard", "image_id"], how="anti", maintain_order="left")
        self.labels, self.shards = frame["label"].to_numpy(), frame["shard"].to_numpy()
        self._table = frame.to_arrow()
        outputs = {shard: record.output for shard, record in records.items() if record.output}
        self._outputs = {shard: (output.name, output.sha256) for shard, output in outputs.items()}
        self.inputs = sorted(output.sha256 for output in outputs.values())

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: SampleKey) -> Item | Unreadable:
        (row,) = self._table.slice(key.position, 1).to_pylist()
        try:
            pair = self._load(row)
        except NotReached as error:  # those that failed are not among the rows: the shard's file is damaged
            raise StageError(f"shard {row['shard']} lacks {row['path']}. Run `sare verify --reopen`.") from error
        except (ImageError, TransientError) as error:
            return Unreadable(row["path"], str(error))
        rng = sample_generator(self.seed, key.epoch, row["image_id"]) if self.augment else None
        image, sare = prepare(*pair, self.settings, self.augment, rng)
        return image, sare, float(row["label"])

    @stamina.retry(on=TransientError, attempts=5, wait_initial=1.0, wait_max=20.0)
    def _load(self, row: dict[str, Any]) -> Pair:
        reader = _reader(self.url, *self._outputs[row["shard"]])
        return load_pair(reader, self.root, row, self.view)


def collate(items: list[Item | Unreadable]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[Unreadable]]:
    """Images, maps and labels of those that could be read, none of them perhaps, and the others."""
    good = [item for item in items if not isinstance(item, Unreadable)]
    image, sare, label = default_collate(good) if good else (torch.empty(0),) * 3
    return image, sare, label, [item for item in items if isinstance(item, Unreadable)]


def load_pair(reader: TarReader, root: str, row: dict[str, Any], view: str) -> Pair:
    """x (viewed, at its own size) and SARE of a row of the index, as RGB images.

    reader: of its shard. x is read from the dataset's root where the shard does not hold it. Raises NotReached when the
    shard lacks the image, ImageError or TransientError when it cannot be read.
    """
    fields = reader.fields(row["image_id"])
    if "sare.png" not in fields:
        raise NotReached("it has no SARE map (sare status shows why)")
    kept = row["extension"] in fields
    try:
        source = reader.read(row["image_id"], row["extension"]) if kept else read_source(root, row)
        sare = reader.read(row["image_id"], "sare.png")
    except OSError as error:
        raise TransientError(f"shard {row['shard']} of the reconstructions: reading failed: {error}") from error
    return view_image(source, row, view), Image.open(io.BytesIO(sare)).convert("RGB")


@lru_cache(maxsize=64)
def _reader(url: str, name: str, sha256: str) -> TarReader:
    """Every worker of a loader opens every shard, in every epoch: so what was checked is not checked again."""
    return TarReader(checked_output(Store(url), name, sha256, once=True))


def epoch_order(shard_of: np.ndarray, seed: int, epoch: int, mixed: int) -> np.ndarray:
    """Positions 0..n-1 in the order of one epoch: shards shuffled, then `mixed` of them at a time shuffled together.

    shard_of: the shard of each position. Reading is nearly sequential and yet real and fake, and subsets, mix.
    """
    rng = np.random.default_rng([seed, epoch])
    shards, places = np.unique(np.asarray(shard_of), return_inverse=True)
    by_shard = [np.flatnonzero(places == number) for number in range(len(shards))]
    order = rng.permutation(len(shards))
    groups = [np.concatenate([by_shard[n] for n in order[i : i + mixed]]) for i in range(0, len(order), mixed)]
    return np.concatenate([rng.permutation(group) for group in groups])


class MicroBatches(torch.utils.data.Sampler[list[SampleKey]]):
    """This rank's micro-batches from a step on to the end: of each step, number j belongs to rank j mod `world`.

    What a micro-batch holds does not depend on the number of ranks.
    """

    def __init__(
        self, shard_of: np.ndarray, settings: TrainSettings, seed: int, steps: range, micro: int, rank: int, world: int
    ) -> None:
        self.shard_of, self.seed, self.steps = shard_of, seed, steps
        self.batch_size, self.mixed = settings.batch_size, settings.shuffle_shards
        self.micro, self.rank, self.world = micro, rank, world
        self.steps_per_epoch = len(shard_of) // settings.batch_size

    def __len__(self) -> int:
        return len(self.steps) * (self.batch_size // self.micro // self.world)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order, of_epoch = np.empty(0, dtype=int), -1
        for step in self.steps:
            epoch, place = divmod(step, self.steps_per_epoch)
            if epoch != of_epoch:
                order, of_epoch = epoch_order(self.shard_of, self.seed, epoch, self.mixed), epoch
            batch = order[place * self.batch_size : (place + 1) * self.batch_size]
            for number in range(self.rank, self.batch_size // self.micro, self.world):
                positions = batch[number * self.micro : (number + 1) * self.micro]
                yield [SampleKey(epoch, int(position)) for position in positions]
