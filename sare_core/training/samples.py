"""The samples of a dataset's shards for training: which there are, in what order, and one.

Counts come from records, the order of an epoch from (seed, epoch) alone: so lengths are exact, every process knows its
part without asking, and a run that goes on sees what an undisturbed one would have seen.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import stamina
import torch
from torch.utils.data import DataLoader, default_collate

from sare_core.config.detectors import DetectorSettings
from sare_core.config.training import AugmentSettings, TrainSettings
from sare_core.detectors import detector_class
from sare_core.detectors.parts import map_role, read_parts
from sare_core.detectors.transforms import Parts
from sare_core.engine.folders import Folder, Record
from sare_core.engine.manifest import Index
from sare_core.engine.outputs import checked_output
from sare_core.engine.shardfiles import TarReader
from sare_core.engine.signals import leave_signals_to_the_parent
from sare_core.errors import ImageError, NotReached, StageError, TransientError
from sare_core.store.storage import Store

Item = dict[str, torch.Tensor]  # what a detector reads of a sample, and its label
_NEEDED = ["image_id", "path", "sha256", "extension", "label", "shard"]


class SampleKey(NamedTuple):
    """Which row to load, and in which epoch: all that a loader's worker needs to know."""

    epoch: int
    position: int


class Unreadable(NamedTuple):
    """An image whose source file cannot be read now, and why."""

    path: str
    reason: str


class Samples(torch.utils.data.Dataset[Item | Unreadable]):
    """The labelled images of some shards as samples of a detector, by position.

    In order of shard and image_id; images that failed on the way are not among them. In training an image gives the
    samples that the detector names, one after the other; held out (without `augment`) the first alone. The rows are
    kept as an Arrow table: as Python objects, hundreds of thousands of them would be copied into every worker, page by
    page.

    maps: the reconstructions that the detector reads, by role.
    labels: (images,). shards: (n,) of each sample.
    inputs: SHA-256 of each shard's file, sorted, of one map after the other; without maps of each shard's images.
    Raises StageError when a shard has not been reconstructed yet.
    """

    def __init__(
        self,
        maps: dict[str, Folder],
        index: Index,
        shards: list[int],
        settings: DetectorSettings,
        view: str,
        augment: AugmentSettings | None = None,
        seed: int = 0,
    ) -> None:
        self.settings, self.augment, self.seed = settings, augment, seed
        self.root, self.view = index.about["root"], view
        self.kind = detector_class(settings.detector)
        self.names = self.kind.samples(settings)[: None if augment else 1]
        frame = index.frame().filter(pl.col("shard").is_in(shards), pl.col("label").is_not_null())
        if not maps:
            frame = frame.filter(pl.col("error").is_null())
        self._outputs: dict[str, tuple[str, dict[int, tuple[str, str]]]] = {}
        self.inputs = [] if maps else sorted(index.digests[shard] for shard in shards)
        for name, changes in self.kind.maps.items():
            folder = maps[map_role(name)]
            records = _records(folder, index, shards, changes)
            failed = {(shard, failure.image_id) for shard, record in records.items() for failure in record.failures}
            lost = pl.DataFrame(sorted(failed), {"shard": pl.Int32, "image_id": pl.String}, orient="row")
            frame = frame.join(lost, on=["shard", "image_id"], how="anti", maintain_order="left")
            outputs = {shard: record.output for shard, record in records.items() if record.output}
            files = {shard: (output.name, output.sha256) for shard, output in outputs.items()}
            self._outputs[map_role(name)] = folder.store.url, files
            self.inputs += sorted(output.sha256 for output in outputs.values())
        self.labels, self.shards = frame["label"].to_numpy(), np.repeat(frame["shard"].to_numpy(), len(self.names))
        self._table = frame.select(_NEEDED).to_arrow()

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, key: SampleKey) -> Item | Unreadable:
        place, number = divmod(key.position, len(self.names))
        (row,) = self._table.slice(place, 1).to_pylist()
        try:
            parts = self._load(row)
        except NotReached as error:  # those that failed are not among the rows: the shard's file is damaged
            raise StageError(f"shard {row['shard']} lacks {row['path']}. Run `sare verify --reopen`.") from error
        except (ImageError, TransientError) as error:
            return Unreadable(row["path"], str(error))
        parts, label = self.kind.sample(self.names[number], parts, row["label"])
        drawn_for = f"{row['image_id']}/{self.names[number]}" if number else row["image_id"]
        rng = sample_generator(self.seed, key.epoch, drawn_for) if self.augment else None
        return {**self.kind.prepare(parts, self.settings, self.augment, rng), "label": torch.tensor(float(label))}

    @stamina.retry(on=TransientError, attempts=5, wait_initial=1.0, wait_max=20.0)
    def _load(self, row: dict[str, Any]) -> Parts:
        readers = {role: _reader(url, *files[row["shard"]]) for role, (url, files) in self._outputs.items()}
        return read_parts(self.kind, readers, self.root, row, self.view)


def loader(samples: Samples, batches: Iterable[list[SampleKey]], workers: int) -> DataLoader[Any]:
    """The batches of these keys, in their order, each as `collate` gives it."""
    return DataLoader(
        samples,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=leave_signals_to_the_parent,
    )


def collate(items: list[Item | Unreadable]) -> tuple[Item, list[Unreadable]]:
    """The batch of those samples that could be read, without any of them but "label" (0,); and the others."""
    good = [item for item in items if not isinstance(item, Unreadable)]
    batch: Item = default_collate(good) if good else {"label": torch.empty(0)}
    return batch, [item for item in items if isinstance(item, Unreadable)]


def _records(folder: Folder, index: Index, shards: list[int], changes: dict[str, Any]) -> dict[int, Record]:
    """The records of shards of reconstructions. Raises StageError: some are not done."""
    if missing := folder.undone(index, shards):
        settings = " ".join(["with these settings", *(f"--set {k}={json.dumps(v)}" for k, v in changes.items())])
        first = "`sare caption`, then " if any(state.waiting for state in missing.values()) else ""
        shard, state = next(iter(missing.items()))
        raise StageError(
            f"{len(missing)} of {len(shards)} shards are not reconstructed, the first is {shard} "
            f"({state.why or state.kind}). Run {first}`sare reconstruct` {settings}."
        )
    return folder.records(shards)


@lru_cache(maxsize=512)
def _reader(url: str, name: str, sha256: str) -> TarReader:
    """Every worker of a loader opens every shard, in every epoch: so what was checked is not checked again, and shards
    stay open: half of the 1,024 files that a process may usually have.
    """
    return TarReader(checked_output(Store(url), name, sha256, once=True))


def sample_generator(seed: int, epoch: int, image_id: str) -> torch.Generator:
    """The generator of one image in one epoch: workers, processes and order play no part in what it draws."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{image_id}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]))


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
