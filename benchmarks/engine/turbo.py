"""Faster and less exact reconstructions on the scale model: `python -m benchmarks.engine.turbo`, after `sare mini` and
`python -m benchmarks.engine.lcm`, which makes the distilled model.

Writes benchmarks/engine/turbo.md; with --only a tier's rows are put into it, and the others stay. Each tier makes maps
of the same images, with and without caption, from one noise and from another: what the noise alone does is the floor
that a tier is held against.
"""

import io
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import polars as pl
import torch
import typer
from PIL import Image
from rich.console import Console
from sklearn.metrics import roc_auc_score

from benchmarks.bars import made_by
from benchmarks.engine.lcm import OUT
from sare_core.config import load_settings
from sare_core.detectors.folder import open_detector
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import read_index
from sare_core.engine.shardfiles import TarReader
from sare_core.evaluation.results import read_outputs
from sare_core.evaluation.tables import UNDEFINED, ResultTable, to_markdown, to_terminal
from sare_core.models import compiled
from sare_core.plan import flops, models
from sare_core.reconstruction import method_of, quantising
from sare_core.reconstruction.mapper import Mapper
from sare_core.study.variants import NO_CAPTION
from tests.pipeline import Pipeline

# The settings of `reconstruct` that make each tier; the first is the preset as it is.
TIERS = (
    *("exact", "steps=6", "steps=4", "cache_interval=2", "cache_interval=3", "method=one_step"),
    *("token_merging=0.5", "sampler=lcm steps=4", "sampler=lcm steps=8", "speed=quantised"),
)
OTHER_NOISE = "seed=1"
# sdv1.4, whose training images detectors see, and the unseen generators that read text and are no near-copies of it.
FOLDERS = ("stable_diffusion_v_1_4", "glide", "Midjourney", "VQDM")
KNOWN = "sdv1.4"
DETECTORS = ("map", "difference", "difference_in_difference")
TABLE = Path(__file__).with_suffix(".md")
TRAININGS = 3  # seeds, over which AUCs are averaged
TIMED, TURNS = 50, 7  # images of a batch, and how often each tier's turn comes
COLUMNS = ["", "passes", "GFLOP", "ms", "Δx̂", "Δx̂, 99 %", "correlation"]
COLUMNS += [f"{what}, {on}" for what in ("number", "head kept", "head retrained") for on in (KNOWN, "unseen")]
NOTES = [
    "Each tier is the preset with those settings of reconstruct; below it, the same with another noise. sampler=lcm: "
    f"with {OUT}, the U-Net distilled by benchmarks.engine.lcm.",
    "passes: of the U-Net an image, the guidance pass counted; + of its outermost layers alone. GFLOP, ms: an image "
    f"with its caption; ms of the processor, the least of {TURNS} turns, in batches of {TIMED}, one thread; – where "
    "the row was added later, by --only.",
    "speed=quantised: not compiled, and products of 8-bit integers in float32, which holds them exactly at these "
    "widths; so its ms are not those of a GPU.",
    "Δx̂: mean change of x̂ in levels, and its 99th percentile; correlation: of the images' mean errors. A tier is "
    "compared with exact, another noise with its own tier.",
    f"Columns from number on: AUC (%), of {KNOWN} and the mean of the unseen generators that read text (glide, "
    "midjourney, vqdm).",
    "number: mean error under the caption less that without, of training and test images; nothing is trained.",
    f"head: detector map, mean of {TRAININGS} training seeds, 100 test images a generator; kept: trained on exact "
    "maps; retrained: on the tier's, with the first noise.",
]


class Made(NamedTuple):
    """Of each image its generator's name and label, x̂, the mean error, and that less the error without caption."""

    subset: np.ndarray
    label: np.ndarray
    x_hat: np.ndarray
    error: np.ndarray
    change: np.ndarray


class World:
    """The scale model's images, in a folder, and what was made of them under some settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in FOLDERS:
            shutil.copytree(Path("data/mini") / name, folder / "images" / name, dirs_exist_ok=True)
        self.pipeline().index(folder / "images", shard_size=100)
        self.index = read_index(self.pipeline().manifests, "mini")

    def pipeline(self, *sets: str) -> Pipeline:
        settings = load_settings("mini", list(sets), "genimage")
        return Pipeline(settings, str(self.folder / "manifests"), str(self.folder / "work"), "mini")

    def reconstructed(self, *sets: str) -> Folder:
        pipeline = self.pipeline(*sets)
        pipeline.captions()
        pipeline.reconstructions()
        return pipeline.graph.reconstructions

    def made(self, *sets: str) -> Made:
        (rows, x_hat, error), (_, _, without) = (
            self._read(self.reconstructed(*sets, *more)) for more in ([], NO_CAPTION)
        )
        return Made(rows["subset"].to_numpy(), rows["label"].to_numpy(), x_hat, error, error - without)

    def _read(self, folder: Folder) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
        rows, x_hat, error = list[pl.DataFrame](), list[np.ndarray](), list[float]()
        for shard, record in sorted(folder.records(self.index.shards["shard"].to_list()).items()):
            reader, of_shard = TarReader(folder.output(record)), pl.DataFrame(self.index.rows(shard))
            rows.append(of_shard.select("subset", "label"))
            for key in of_shard["image_id"]:
                files = (reader.read(key, f"{name}.png") for name in ("reconstruction", "sare"))
                again, sare = (np.asarray(Image.open(io.BytesIO(file))) for file in files)
                x_hat.append(again)
                error.append(float(sare.mean()))
        return pl.concat(rows), np.stack(x_hat), np.array(error)

    def heads(self, detector: str, *sets: str) -> list[Folder]:
        """Detectors that were trained on the maps of some settings, one a seed."""
        return [self._of(detector, seed, *sets).detector() for seed in range(TRAININGS)]

    def areas(self, heads: list[Folder], detector: str, *sets: str) -> list[float]:
        """`areas` of some heads on the test maps of some settings, as a mean over the heads."""
        each = []
        for seed, head in enumerate(heads):
            pipeline = self._of(detector, seed, *sets)
            pipeline.predictions(head)
            folder = pipeline.graph.predictions(open_detector(head.store.url, pipeline.work).best)
            scores = read_outputs(folder, self.index.select(["test"])["shard"].to_list())
            each.append(areas(*(scores[column].to_numpy() for column in ("logit", "label", "subset"))))
        return [float(value) for value in np.mean(each, axis=0)]

    def _of(self, detector: str, seed: int, *sets: str) -> Pipeline:
        return self.pipeline(*sets, f"detector.detector={detector}", f"train.seed={seed}")


def tiers(world: World, only: list[str] | None) -> ResultTable:
    """A row a tier and one with another noise; of those not in `only`, as they stand in the table."""
    milliseconds = [UNDEFINED] * len(TIERS) if only else _milliseconds()
    standing = _standing() if only else {}
    rows, exact, heads = list[list[str]](), world.made(), world.heads("map")
    for tier, taken in zip(TIERS, milliseconds, strict=True):
        if only and tier not in only:
            rows += standing.get(tier, [])
            continue
        sets, noise = _sets(tier), [*_sets(tier), OTHER_NOISE]
        made, own = world.made(*sets), world.heads("map", *sets)
        rows.append([tier, *_cost(sets), taken, *_compared(world, made, exact, heads, own, *sets)])
        rows.append(["other noise", *[UNDEFINED] * 3, *_compared(world, world.made(*noise), made, heads, own, *noise)])
    return ResultTable("Tiers", COLUMNS, rows, NOTES)


def _standing() -> dict[str, list[list[str]]]:
    """The two rows of each tier in the table."""
    lines = TABLE.read_text(encoding="utf-8").partition("## Detectors")[0].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][2:]
    return {first[0]: [first, second] for first, second in zip(rows[::2], rows[1::2], strict=True)}


def detectors(world: World) -> ResultTable:
    """Each of DETECTORS trained on exact maps."""
    world.reconstructed("reconstruct.rounds=2")
    found = {name: world.areas(world.heads(name), name) for name in DETECTORS}
    rows = [[name, *(f"{area:.1f}" for area in each)] for name, each in found.items()]
    notes = ["Each trained and tested on exact maps; images, seeds and columns as of the heads above."]
    return ResultTable("Detectors, AUC (%)", ["", KNOWN, "unseen"], rows, notes)


def areas(scores: np.ndarray, labels: np.ndarray, subsets: np.ndarray) -> tuple[float, float]:
    """AUC in percent of KNOWN, and the mean of the other generators' AUCs."""
    each = {name: 100 * float(roc_auc_score(labels[subsets == name], scores[subsets == name])) for name in set(subsets)}
    known = each.pop(KNOWN)
    return known, float(np.mean(list(each.values())))


def _compared(
    world: World, made: Made, beside: Made, kept: list[Folder], retrained: list[Folder], *sets: str
) -> list[str]:
    moved = np.abs(made.x_hat.astype(int) - beside.x_hat)
    found = [
        *areas(-made.change, made.label, made.subset),
        *(area for heads in (kept, retrained) for area in world.areas(heads, "map", *sets)),
    ]
    correlation = np.corrcoef(made.error, beside.error)[0, 1]
    return [
        *(f"{moved.mean():.1f}", f"{np.percentile(moved, 99):.0f}", f"{correlation:.2f}"),
        *(f"{area:.1f}" for area in found),
    ]


def _sets(tier: str) -> list[str]:
    if tier == TIERS[0]:
        return []
    model = [f"model={OUT}"] if "sampler=lcm" in tier else []
    return [f"reconstruct.{each}" for each in (*tier.split(), *model)]


def _milliseconds() -> list[str]:
    """Of each tier."""
    configs = [load_settings("mini", _sets(tier)).reconstruct for tier in TIERS]
    mappers = [Mapper.load(config, 0, config.model, "cpu") for config in configs]
    images = [np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8) for number in range(TIMED)]
    captions, names = ["a photo of a bag"] * TIMED, [str(number) for number in range(TIMED)]
    taken = np.empty((TURNS, len(mappers)))
    for turn in taken:
        for place, mapper in enumerate(mappers):
            started = time.process_time()
            mapper.maps(images, captions, names)
            turn[place] = time.process_time() - started
    return [f"{1000 * seconds / TIMED:.1f}" for seconds in taken.min(axis=0)]


def _cost(sets: list[str]) -> list[str]:
    """Passes and GFLOP of a tier."""
    config = load_settings("mini", sets).reconstruct
    method, model, size = method_of(config), models.diffusion(config), (config.longer_side, config.longer_side)
    rows, (whole, outer) = method.rows(config, model.unet), method.passes(config)
    needed = flops.reconstruct_flops(config, model, [size], captioned=True)[size]
    return [f"{rows * whole}" + f" + {rows * outer}" * (outer > 0), f"{needed / 1e9:.2f}"]


def main(
    folder: Annotated[Path | None, typer.Option(help="Where data go, and are found again. Default: temporary.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A tier to measure; the rows of the others stay.")] = None,
) -> None:
    """Measure, print and write down."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    compiled.BACKEND = "eager"  # inductor takes minutes, and changes rounding alone
    quantising.multiply = lambda one, other: one.float() @ other.float()  # CPUs without VNNI take 30 times as long
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory() as temporary:
        world = World(folder or Path(temporary))
        tables = [tiers(world, only), *([] if only else [detectors(world)])]
    for table in tables:
        console.print(to_terminal(table, console.width))
    text = made_by("turbo", "python -m benchmarks.engine.turbo") + to_markdown(tables)
    if only:
        text += "\n" + "".join(TABLE.read_text(encoding="utf-8").partition("## Detectors")[1:])
    TABLE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
