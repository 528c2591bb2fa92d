"""The parts of the page that have figures: each with the sentences that go with what it shows, or that say why not."""

from typing import NamedTuple

import polars as pl

from sare_core.engine.checkpoints import Checkpoint
from sare_core.evaluation.metrics import THRESHOLD
from sare_core.report.drawing import Figure
from sare_core.report.figures import gaps_figure, means_figure, mirror_figure, training_figure
from sare_core.report.numbers import Shift, histograms, semantic_shift
from sare_core.report.verdict import shift_sentences

MEASURED = {  # unit of the axes, and what the page says
    "lpips": ("LPIPS", "The shift is LPIPS between x and x̂, as in the paper."),
    "sare": (
        "mean |x − x̂| of 255 levels",
        "The shift is the mean of |x − x̂| over the stored map, in 8-bit levels; the paper takes LPIPS, which these "
        "reconstructions do not hold (reconstruct.lpips).",
    ),
}
HISTORY = ("epoch", "train_loss", "loss", "accuracy", "auc")


class Part(NamedTuple):
    """sentences: on what the figures show. missing: what is left out, and why; empty when all is there.

    shift: the numbers of Figure 4, where the part is about them.
    """

    sentences: list[str]
    figures: list[Figure]
    missing: str = ""
    shift: Shift | None = None


UNLABELLED = Part([], [], "Left out: it takes labelled images of both classes.")


def shift_part(variants: dict[str, pl.DataFrame], missing: str) -> Part:
    """Figure 4. variants: MEASURES "with" captions, "without", or both; missing: why there are not both."""
    if not _both_classes(*variants.values()):
        return UNLABELLED
    shift = semantic_shift(variants)
    if shift.means.is_empty():
        return Part([], [], "Left out: no image has a map both with and without captions.")
    unit, explained = MEASURED[shift.measure]
    figures = [means_figure(shift.means, unit)] + ([gaps_figure(shift.gaps, unit)] if len(shift.gaps) else [])
    return Part([explained, *shift_sentences(shift)], figures, missing, shift)


def distributions_part(predictions: pl.DataFrame, measures: pl.DataFrame) -> Part:
    """Scores, and the mean of SARE maps (MEASURES)."""
    if not _both_classes(predictions, measures):
        return UNLABELLED
    scores = histograms(predictions, "score", 0, 1)
    largest = float(measures["sare"].quantile(0.995) or 1)  # a few far images must not squash the others
    maps = histograms(measures, "sare", 0, largest)
    return Part(
        ["The dashed line is the threshold of 0.5."],
        [
            mirror_figure("scores", scores, "score (0 real, 1 fake)", "scores", THRESHOLD),
            mirror_figure("maps", maps, "mean |x − x̂| of 255 levels; last bin: and more", "the mean of SARE maps"),
        ],
    )


def training_part(last: Checkpoint, best: Checkpoint) -> Part:
    """The curve of the whole training, and which epoch was chosen."""
    history = pl.DataFrame(last.history, schema=dict.fromkeys(HISTORY, pl.Float64))
    chosen, epoch = best.entry(), best.epoch
    why = "as the last one: no images were held out to choose by"
    if chosen["accuracy"] is not None:
        auc = "undefined" if chosen["auc"] is None else f"{100 * chosen['auc']:.1f} %"
        why = f"for its accuracy on held-out training images, {100 * chosen['accuracy']:.1f} % (AUC {auc})"
    return Part([f"Epoch {epoch} of {len(history)} was chosen {why}."], [training_figure(history, epoch)])


def _both_classes(*frames: pl.DataFrame) -> bool:
    return all({0, 1} <= set(frame["label"].drop_nulls()) for frame in frames)
