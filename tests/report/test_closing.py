"""What stands beside the detector, and what the page concludes."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from sare_core.errors import ConfigError
from sare_core.evaluation.metrics import subset_metrics
from sare_core.report.numbers import auc_gain
from sare_core.report.premise import premise_part
from sare_core.report.verdict import closing, gain_sentences
from tests.report.conftest import Made


def predicted(skill: float, seed: int = 0) -> pl.DataFrame:
    """Two subsets of 150 real and 150 fake images; `skill` parts the classes, the noise is the same for all."""
    rng = np.random.default_rng(seed)
    labels = np.tile([0, 1], 300)
    logits = skill * labels + rng.normal(size=600)
    return pl.DataFrame(
        {
            "image_id": [f"{n:04}" for n in range(600)],
            "subset": ["sdv1.4"] * 300 + ["adm"] * 300,
            "label": labels,
            "logit": logits,
            "score": 1 / (1 + np.exp(-logits)),
        },
        schema_overrides={"label": pl.Int8},
    )


def test_a_gain_is_the_difference_of_two_areas_paired_by_image() -> None:
    better, worse = predicted(2.0), predicted(1.0)
    gain = auc_gain(better, worse, ["adm"])
    area = [roc_auc_score(p["label"][300:], p["logit"][300:]) for p in (better, worse)]
    assert gain is not None and gain.value == pytest.approx(area[0] - area[1])
    assert gain.interval.low < gain.value < gain.interval.high
    unpaired = auc_gain(better, predicted(1.0, seed=1), ["adm"])
    assert unpaired is not None
    assert np.diff(gain.interval) < 0.7 * np.diff(unpaired.interval), "the same noise falls out"
    assert auc_gain(better, better, ["adm", "sdv1.4"]).value == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(("control", "reading"), [(1.0, "gains"), (3.0, "loses"), (2.0, "neither gains nor loses")])
def test_sentences_say_which_way_and_how_far(control: float, reading: str) -> None:
    ours = predicted(2.0)
    unseen, seen = gain_sentences(ours, {"a map of zeros": predicted(control)}, subset_metrics(ours), {"sdv1.4"})
    assert unseen.startswith(f"Over a map of zeros, the detector {reading}") and "on unseen generators" in unseen
    assert "on training generators" in seen and "points of mean AUC [" in seen


def test_the_last_words_name_the_worst_generator_and_the_next_step() -> None:
    ours = predicted(2.0)
    both = pl.concat([ours, ours.filter(subset="adm").with_columns(subset=pl.lit("glide"), logit=-pl.col("logit"))])
    first, *rest = closing("result of x.", ["Over y."], None, subset_metrics(both), {"sdv1.4"})
    assert first == "Result of x." and rest[0] == "Over y."
    assert rest[1].startswith("It fails most on glide") and "Score my images" in rest[2]


def test_the_premise_is_what_comes_with_the_images(tmp_path: Path) -> None:
    assert premise_part(str(tmp_path)) is None
    (tmp_path / "premise.csv").write_text(
        "images,extras,captioner_right,fit_auc,kept,missed\n"
        "photographs,1.62,92.4,50,91,\nadm,1.5,88,41.3,90.5,fit_auc\nmidjourney,0.1,99,61,97,\n"
    )
    found = premise_part(str(tmp_path))
    assert found is not None and found.photographs == (1.62, 92.4)
    assert found.rows == [("midjourney", 0.1, 61.0, 97.0, ""), ("adm", 1.5, 41.3, 90.5, "fit_auc")]


def test_a_control_stands_in_the_tables_and_the_sentences(made: Made, tmp_path: Path) -> None:
    made.again(control=["the same=detector.detector=sare"], out=str(tmp_path))
    page = (tmp_path / "index.html").read_text()
    assert "The detector beside its controls" in page and '<th scope="row">the same</th>' in page
    assert "Over the same, the detector neither gains nor loses for certain on unseen generators: +0.0 points" in page
    assert "the same,sdv1.4" in (tmp_path / "tables" / "metrics.csv").read_text()


@pytest.mark.parametrize("control", ["zeros", "=a=b", "zeros=", "zeros=semantic_input"])
def test_a_control_is_a_name_and_a_setting(control: str, tmp_path: Path, made: Made) -> None:
    with pytest.raises(ConfigError, match="write it as NAME=SETTING"):
        made.again(control=[control], out=str(tmp_path))
