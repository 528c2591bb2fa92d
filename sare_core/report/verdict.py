"""What the numbers say, in sentences that claim no more than they show."""

from typing import NamedTuple

import polars as pl

from sare_core.evaluation.metrics import THRESHOLD, is_mean
from sare_core.evaluation.tables import TRIVIAL, Runs
from sare_core.evaluation.trivial import SUSPICIOUS
from sare_core.report.numbers import Mean, Shift, auc_gain, mean_acc, mean_auc


class Key(NamedTuple):
    """One of the few numbers at the head of the page."""

    name: str
    value: str
    interval: str


class Verdict(NamedTuple):
    keys: list[Key]
    lead: str
    sentences: list[str]


def verdict(predictions: pl.DataFrame, name: str, runs: Runs, trained: set[str]) -> Verdict:
    """The mean over the subsets that training did not see, or over all where there are none else.

    name: the detector's, among the runs. trained: subsets of this dataset that it was trained on.
    """
    rows = runs[name].filter(~is_mean(), pl.col("auc").is_not_null())
    names = [name for name in rows["subset"] if name not in trained] or rows["subset"].to_list()
    auc, acc = mean_auc(predictions, names), mean_acc(predictions, names, THRESHOLD)
    if auc is None or acc is None:
        return Verdict([], "No subset has both real and fake images with labels, so nothing can be measured.", [])
    unseen = not set(names) & trained
    where = "unseen generators" if unseen else "training generators"
    lead = f"On {_count(len(names), 'generator')} " + (
        "of which the detector saw no image in training"
        if unseen
        else "that it was trained on, since there are no others to test on, the detector"
    )
    lead += (
        f"{', it' if unseen else ''} puts a generated image above a real one in {_percent(auc.value)} of pairs, where "
        f"guessing gives 50 %, and calls {_percent(acc.value)} of images correctly at the threshold of 0.5."
    )
    keys = [_key(f"Mean AUC, {where}", auc), _key(f"Mean ACC, {where}", acc)]
    sentences = [_reading(auc)]
    if len(names) > 1:
        chosen = rows.filter(pl.col("subset").is_in(names)).sort("auc", "subset")
        (low, first), (high, last) = (chosen.select("auc", "subset").row(place) for place in (0, -1))
        sentences.append(f"The AUC is lowest on {first}, {_percent(low)}, and highest on {last}, {_percent(high)}.")
    for row in rows.filter(~pl.col("subset").is_in(names)).iter_rows(named=True):
        sentences.append(
            f"On {row['subset']}, of which it saw other images in training, the AUC is {_percent(row['auc'])}."
        )
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


def result_sentence(name: str, runs: Runs, trained: set[str]) -> str:
    """The result in one sentence: the AUC on what the detector was trained on, on what it was not, and of no skill.

    name, trained: as in `verdict`.
    """
    rows = runs[name].filter(~is_mean(), pl.col("auc").is_not_null())
    seen, unseen = (rows.filter(pl.col("subset").is_in(trained) == known) for known in (True, False))
    parts = [f"{_area(seen)} on {', '.join(seen['subset'])}, which it was trained on"] if len(seen) else []
    if len(unseen):
        where = f"average over {len(unseen)} unseen generators" if len(unseen) > 1 else f"unseen {unseen['subset'][0]}"
        parts.append(f"{_area(unseen)} on {where}")
    if not parts:
        return f"result of {name}: no AUC, since no subset has both real and fake images with labels."
    parts.append("chance is 50 %")
    if TRIVIAL in runs:
        there = (unseen if len(unseen) else seen)["subset"]
        trivial = _area(runs[TRIVIAL].filter(pl.col("subset").is_in(there)))
        parts.append(f"the trivial detector (format, size and bytes of the files) reaches {trivial} there")
    return f"result of {name}: AUC {'; '.join(parts)}."


def gain_sentences(
    predictions: pl.DataFrame, beside: dict[str, pl.DataFrame], metrics: pl.DataFrame, trained: set[str]
) -> list[str]:
    """What the detector gains in AUC over each control, on generators it was not trained on and on the others.

    beside: predictions of each control by its name. metrics: of the detector.
    """
    rows = metrics.filter(~is_mean(), pl.col("auc").is_not_null())
    groups = {
        "unseen generators": [name for name in rows["subset"] if name not in trained],
        "training generators": [name for name in rows["subset"] if name in trained],
    }
    sentences = []
    for control, other in beside.items():
        for where, names in groups.items():
            if (gain := auc_gain(predictions, other, names)) is not None:
                low, high = gain.interval
                reading = "gains" if low > 0 else "loses" if high < 0 else "neither gains nor loses for certain"
                sentences.append(
                    f"Over {control}, the detector {reading} on {where}: {100 * gain.value:+.1f} points of mean AUC "
                    f"[{100 * low:+.1f}, {100 * high:+.1f}]."
                )
    return sentences


def closing(result: str, gains: list[str], shift: Shift | None, metrics: pl.DataFrame, trained: set[str]) -> list[str]:
    """What was shown, where it fails, and what to do next, for someone who reads nothing else.

    result, gains: sentences from `result_sentence` and `gain_sentences`. metrics: of the detector.
    """
    sentences = [result[0].upper() + result[1:], *gains]
    part = pl.DataFrame() if shift is None else shift.gaps.filter(pl.col("captions") == "with")
    if len(part):
        above = f"{int((part['low'] > 0).sum())} of {_count(len(part), 'generator')}"
        sentences.append(f"Photographs moved more than generated images under their caption on {above}.")
    areas = metrics.filter(~is_mean(), pl.col("auc").is_not_null(), ~pl.col("subset").is_in(trained)).sort("auc")
    if len(areas) > 1:
        low, name = areas.select("auc", "subset").row(0)
        sentences.append(f"It fails most on {name}, with an AUC of {_percent(low)}.")
    sentences.append(
        "All of it is of one training run and of these images alone, and a score is no proof that one picture is "
        "generated. To score images of your own you need a detector that was trained on data like them: the README, "
        "under “Score my images”, has the commands."
    )
    return sentences


def _area(rows: pl.DataFrame) -> str:
    return _percent(float(rows["auc"].mean()))  # type: ignore[arg-type]


def shift_sentences(shift: Shift) -> list[str]:
    """On how many subsets Δ, and what captions add to it, is clear of zero."""
    sentences = []
    for kind, lead in (
        ("with", "With captions, real images change more than fake ones"),
        ("without", "Without captions, real images change more"),
        ("gain", "Captions widen the gap"),
    ):
        part = shift.gaps.filter(pl.col("captions") == kind)
        if len(part):
            above, below = int((part["low"] > 0).sum()), int((part["high"] < 0).sum())
            unclear = len(part) - above - below
            text = f"{lead} on {above} of {_count(len(part), 'subset')}"
            text += f", the other way round on {below}" if below else ""
            sentences.append(text + (f"; on {unclear} the interval holds zero." if unclear else "."))
    return sentences


def _reading(auc: Mean) -> str:
    if auc.interval.low > 0.5:
        return "That is better than guessing."
    if auc.interval.high < 0.5:
        return "That is worse than guessing: it tends to rank them the wrong way round."
    return "That cannot be told from guessing."


def _key(name: str, mean: Mean) -> Key:
    low, high = mean.interval
    return Key(name, _percent(mean.value), f"95 % interval {100 * low:.1f} to {100 * high:.1f}")


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
