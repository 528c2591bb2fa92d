"""What the numbers say, in sentences that claim no more than they show."""

from collections.abc import Collection
from typing import NamedTuple

import polars as pl

from sare_core.evaluation.bootstrap import Estimate
from sare_core.evaluation.metrics import CLASS_ONLY, NEAR_COPIES, THRESHOLD, is_mean, unseen_of
from sare_core.evaluation.tables import TRIVIAL, Runs
from sare_core.evaluation.trivial import SUSPICIOUS
from sare_core.report.numbers import GAIN, Shift, auc_gain, mean_acc, mean_auc


class Key(NamedTuple):
    """One of the few numbers at the head of the page."""

    name: str
    value: str
    interval: str


class Verdict(NamedTuple):
    keys: list[Key]
    lead: str
    sentences: list[str]


def verdict(
    predictions: pl.DataFrame,
    name: str,
    runs: Runs,
    trained: set[str],
    gains: dict[str, Estimate] | None = None,
    near_copies: Collection[str] = NEAR_COPIES,
) -> Verdict:
    """The mean over the subsets that training did not see (`unseen_of`), or over all where there are none else.

    name: the detector's, among the runs. trained: subsets of this dataset that it was trained on. gains: over each
    control, on these subsets.
    """
    rows = runs[name].filter(~is_mean(), pl.col("auc").is_not_null())
    names = unseen_of(rows["subset"].to_list(), trained, near_copies) or rows["subset"].to_list()
    auc, acc = mean_auc(predictions, names), mean_acc(predictions, names, THRESHOLD)
    if auc is None or acc is None:
        return Verdict([], "No subset has both real and fake images with labels, so nothing can be measured.", [])
    unseen = not set(names) & trained
    copies = sorted(set(rows["subset"]) - set(names) - trained)
    where = "unseen generators" if unseen else "training generators"
    lead = f"On {_count(len(names), 'generator')} " + (
        f"of which the detector saw no image in training{', nor of a near-copy' if copies else ''}"
        if unseen
        else "that it was trained on, since there are no others to test on, the detector"
    )
    lead += (
        f"{', it' if unseen else ''} puts a generated image above a real one in {_percent(auc.value)} of pairs (AUC), "
        f"where guessing gives 50 %, and calls {_percent(acc.value)} of images correctly at the threshold of 0.5."
    )
    keys = [_key(f"Mean AUC, {where}", auc), _key(f"Mean ACC, {where}", acc)]
    keys += [_gain_key(control, gain) for control, gain in (gains or {}).items()]
    sentences = [_reading(auc)]
    if len(names) > 1:
        chosen = rows.filter(pl.col("subset").is_in(names)).sort("auc", "subset")
        (low, first), (high, last) = (chosen.select("auc", "subset").row(place) for place in (0, -1))
        sentences.append(f"The AUC is lowest on {first}, {_percent(low)}, and highest on {last}, {_percent(high)}.")
    for row in rows.filter(~pl.col("subset").is_in(names)).iter_rows(named=True):
        seen = "saw other images in training" if row["subset"] in trained else "saw images of a near-copy in training"
        sentences.append(f"On {row['subset']}, of which it {seen}, the AUC is {_percent(row['auc'])}.")
    if TRIVIAL in runs:
        trivial = runs[TRIVIAL].filter(~is_mean(), pl.col("subset").is_in(names))["auc"].drop_nulls()
        if len(trivial):
            mean = float(trivial.mean())  # type: ignore[arg-type]
            keys.append(Key("Mean AUC, trivial detector", _percent(mean), "format, size and bytes alone"))
            text = f"The format, size and bytes of the files alone give an AUC of {_percent(mean)}"
            sentences.append(f"{text}: these numbers are not about generation." if mean > SUSPICIOUS else f"{text}.")
    sentences.append(
        "The intervals are over the choice of test images: another training run, other photographs or other generators "
        "may move the numbers by more."
    )
    return Verdict(keys, lead, sentences)


def gains_over(
    predictions: pl.DataFrame,
    beside: dict[str, pl.DataFrame],
    metrics: pl.DataFrame,
    trained: set[str],
    near_copies: Collection[str] = NEAR_COPIES,
) -> dict[str, Estimate]:
    """What the detector gains in AUC over each control, on the subsets of the verdict.

    beside: predictions of each control by its name. metrics: of the detector.
    """
    names = metrics.filter(~is_mean(), pl.col("auc").is_not_null())["subset"].to_list()
    chosen = unseen_of(names, trained, near_copies) or names
    found = {control: auc_gain(predictions, other, chosen) for control, other in beside.items()}
    return {control: gain for control, gain in found.items() if gain is not None}


def gain_sentence(control: str, gain: Estimate) -> str:
    low, high = gain.low, gain.high
    reading = "more" if low > 0 else "less" if high < 0 else "neither more nor less for certain"
    return (
        f"That is {reading} than {control}: {_points(gain.value)} points of AUC, with a 95 % interval from "
        f"{_points(low)} to {_points(high)}."
    )


def closing(lead: str, gains: list[str], shift: Shift | None, metrics: pl.DataFrame, trained: set[str]) -> list[str]:
    """What was shown, where it fails, and what to do next, for someone who reads nothing else.

    lead: of the verdict. gains: from `gain_sentence`. metrics: of the detector.
    """
    sentences = [lead, *gains]
    part = pl.DataFrame() if shift is None else shift.gaps.filter(pl.col("captions") == "with")
    if len(part):
        above = f"{int((part['low'] > 0).sum())} of {_count(len(part), 'generator')}"
        sentences.append(f"Drawn again under their caption, photographs changed more than generated images on {above}.")
    areas = metrics.filter(~is_mean(), pl.col("auc").is_not_null(), ~pl.col("subset").is_in(trained)).sort("auc")
    if len(areas) > 1:
        low, name = areas.select("auc", "subset").row(0)
        excuse = ", which reads no text, so that the premise promises nothing there" if name in CLASS_ONLY else ""
        sentences.append(f"It fails most on {name} (AUC {_percent(low)}){excuse}.")
    sentences.append(
        "All of it is of one training run and of these images alone, and a score is no proof that one picture is "
        "generated. For images of your own you need a detector that was trained on data like them; then “sare index "
        "--layout unlabelled --root photos/ --name photos” is the first of four commands (README, “Score my images”)."
    )
    return sentences


def shift_sentences(shift: Shift) -> list[str]:
    """On how many subsets Δ, and what captions add to it, is clear of zero."""
    sentences = []
    for kind, lead in (
        ("with", "With captions, real images change more than fake ones"),
        ("without", "Without captions, real images change more"),
        (GAIN, "Captions widen the gap"),
    ):
        part = shift.gaps.filter(pl.col("captions") == kind)
        if len(part):
            above, below = int((part["low"] > 0).sum()), int((part["high"] < 0).sum())
            unclear = len(part) - above - below
            text = f"{lead} on {above} of {_count(len(part), 'subset')}"
            text += f", the other way round on {below}" if below else ""
            sentences.append(text + (f"; on {unclear} the interval holds zero." if unclear else "."))
    return sentences


def _reading(auc: Estimate) -> str:
    if auc.low > 0.5:
        return "That is better than guessing."
    if auc.high < 0.5:
        return "That is worse than guessing: it tends to rank them the wrong way round."
    return "That cannot be told from guessing."


def _key(name: str, mean: Estimate) -> Key:
    low, high = mean.low, mean.high
    return Key(name, _percent(mean.value), f"95 % interval {100 * low:.1f} to {100 * high:.1f}")


def _gain_key(control: str, gain: Estimate) -> Key:
    low, high = (_points(end) for end in (gain.low, gain.high))
    return Key(f"AUC beyond {control}", _points(gain.value), f"95 % interval {low} to {high}")


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
