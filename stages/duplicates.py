"""Near-duplicates of a dataset, by perceptual hash: test images that look like training images, and the like.

    sare duplicates --dataset genimage
    sare duplicates --dataset mini --distance 2

Reads each image once, and keeps its hash beside the index. Writes manifests/<dataset>/near-duplicates.csv, a row an
image that has one; nothing is left out of training or evaluation for it.
"""

import os
from typing import Annotated

import polars as pl
import typer

from sare_core.engine.manifest import read_index
from sare_core.engine.progress import bar
from sare_core.engine.terminal import console
from sare_core.errors import StageError
from sare_core.evaluation.tables import ResultTable, to_terminal
from sare_core.index.duplicates import FAR, count_duplicates, hash_images, near_duplicates
from stages.options import Dataset, Manifests, run_command


def duplicates(
    dataset: Dataset,
    distance: Annotated[
        int, typer.Option(min=0, max=FAR, help="Bits of 64 in which the hashes of near-duplicates may differ.")
    ] = 4,
    manifests: Manifests = "manifests",
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that read images; default: one a core.")] = None,
) -> None:
    """Find images that look alike: within the test split, between training and test, between real and fake."""
    index = read_index(manifests, dataset)
    rows = index.frame().filter(pl.col("error").is_null())
    with bar(console, "perceptual hashes", rows["image_id"].n_unique()) as advance:
        hashes = hash_images(index.store, rows, index.about["root"], workers or os.cpu_count() or 1, advance)
    lost = rows["image_id"].n_unique() - len(hashes)
    if lost and lost >= len(hashes):
        raise StageError(f"{lost:,} of {lost + len(hashes):,} images cannot be read: is {index.about['root']} there?")
    found = near_duplicates(rows, hashes, distance)
    index.store.write("near-duplicates.csv", found.write_csv().encode())
    counts = [[what, f"{count:,}"] for what, count in count_duplicates(found)]
    notes = [
        f"{len(hashes):,} images; {found['group'].n_unique():,} groups of images that look alike: perceptual hashes "
        f"that differ in at most {distance} of 64 bits."
    ]
    if lost:
        notes.append(f"{lost:,} images could not be read and are not compared.")
    console.print(to_terminal(ResultTable(f"{dataset}: near-duplicates", ["", "images"], counts, notes), console.width))
    console.print(f"written: {index.store.path('near-duplicates.csv')}", soft_wrap=True)


if __name__ == "__main__":
    run_command(duplicates)
