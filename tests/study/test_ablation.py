"""Rows whose detectors were trained on different generators, side by side: each by its own means."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from sare_core.evaluation.metrics import MEAN, PREDICTION_SCHEMA, UNSEEN, WITHOUT_COPIES
from sare_core.study import ablation
from sare_core.study.rows import Found, Scored

SUBSETS = ("midjourney", "sdv1.4", "sdv1.5", "biggan")


def predictions(shift: float) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        (f"{subset}-{n}", subset, n % 2, logit := rng.normal(shift * place * (n % 2), 1), float(logit > 0))
        for place, subset in enumerate(SUBSETS, start=1)
        for n in range(20)
    ]
    return pl.DataFrame(rows, PREDICTION_SCHEMA, orient="row")


def row(name: str, shift: float, *trained: str, copies: tuple[str, ...] = ("sdv1.4", "sdv1.5")) -> Found:
    settings: Any = SimpleNamespace(evaluate=SimpleNamespace(near_copies=copies))
    return Found(name, settings, trained=trained, scored=[Scored(predictions(shift), None)])  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "read_outputs", lambda folder, shards: folder)


def made(rows: list[Found], baseline: str = "a") -> ablation.Ablation:
    none: Any = None
    return ablation.ablation("t", rows, baseline, none, [], {}, None, [])


def test_each_rows_means_are_of_what_it_was_not_trained_on() -> None:
    found = made([row("a", 0.2, "sdv1.4"), row("b", 0.4, "biggan"), row("c", 0.6), row("d", 0.8, "sdv1.4", copies=())])
    areas = {name: dict(part["subset", "auc"].rows()) for (name,), part in found.metrics.group_by("row")}
    assert areas["a"][WITHOUT_COPIES] == pytest.approx((areas["a"]["midjourney"] + areas["a"]["biggan"]) / 2)
    assert areas["b"][UNSEEN] == pytest.approx(np.mean([areas["b"][name] for name in SUBSETS[:3]]))
    assert UNSEEN not in areas["c"] and WITHOUT_COPIES not in areas["d"]

    (table, gaps), shown = found.tables, {}
    assert table.columns[-1] == "AUC no near-copies"
    for name, *_, cell in table.rows:
        shown[name] = cell.partition(" ")[0]
    assert shown == {
        "a": f"{100 * areas['a'][WITHOUT_COPIES]:.1f}",
        "b": f"{100 * areas['b'][UNSEEN]:.1f}",
        "c": "–",
        "d": f"{100 * areas['d'][UNSEEN]:.1f}",
    }
    assert {column for _, column in table.best} == {1, 2}, "means over other generators are not held against each other"
    notes = " ".join(table.notes)
    assert "What c was trained on is not known" in notes and "b: trained on biggan; near-copies" in notes

    of = {name: set(part["subset"]) for (name,), part in found.differences.group_by("detector")}
    assert WITHOUT_COPIES in of["b"] and UNSEEN not in of["c"], "neither was trained on"
    value = found.differences.filter(detector="b", metric="auc", subset=WITHOUT_COPIES)["value"].item()
    assert value == pytest.approx(areas["b"]["midjourney"] - areas["a"]["midjourney"])
    assert f"b: {WITHOUT_COPIES}; c: {MEAN}" in gaps.notes[0]


def test_rows_alike_are_compared_in_every_column_and_one_row_in_none() -> None:
    table, _ = made([row("a", 0.2, "sdv1.4"), row("b", 0.4, "sdv1.4")]).tables
    assert {column for _, column in table.best} == {1, 2, 3, 4} and "Best bold" in table.notes[0]
    assert len(table.notes) == 1
    (table,) = made([row("a", 0.2, "sdv1.4")]).tables
    assert not table.best and "Best" not in table.notes[0]
    assert len(made([row("b", 0.2), row("c", 0.4)]).tables) == 1, "the baseline is missing"


def test_generators_above_zero_are_counted_of_the_mean_beside_them() -> None:
    rows = [
        ("a", "sare", name, counted, 1.0, 0.5, 1.5, 0.6, 0.5, 0.7, 9.0, 8.0, None, None)
        for name, counted in (("sdv1.4", False), ("sdv1.5", False), ("adm", True), (MEAN, None), (WITHOUT_COPIES, None))
    ]
    ends = [f"{what}{end}" for what in ("delta", "auc") for end in ("", "_low", "_high")]
    names = ["row", "measure", "subset", "counted", *ends, "words_real", "words_fake", "kept_real", "kept_fake"]
    table = ablation.premise_table(pl.DataFrame(rows, names, orient="row"))
    assert table.rows[0][2] == "1 of 1" and WITHOUT_COPIES in table.notes[0]
