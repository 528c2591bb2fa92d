"""What stands beside the detector, and what the page concludes."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from sare_core.config import load_settings
from sare_core.engine.manifest import read_index
from sare_core.errors import ConfigError
from sare_core.evaluation.metrics import subset_metrics
from sare_core.report.numbers import auc_gain
from sare_core.report.premise import premise_part
from sare_core.report.verdict import closing, gain_sentence, gains_over, verdict
from tests.pipeline import Pipeline
from tests.report.conftest import Made
from tests.report.forged import predict, train_detector


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
    assert gain.low < gain.value < gain.high
    unpaired = auc_gain(better, predicted(1.0, seed=1), ["adm"])
    assert unpaired is not None
    assert gain.high - gain.low < 0.7 * (unpaired.high - unpaired.low), "the same noise falls out"
    assert auc_gain(better, better, ["adm", "sdv1.4"]).value == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(("control", "reading"), [(1.0, "more"), (3.0, "less"), (2.0, "neither more nor less")])
def test_sentences_say_which_way_and_how_far(control: float, reading: str) -> None:
    ours = predicted(2.0)
    found = gains_over(ours, {"a map of zeros": predicted(control)}, subset_metrics(ours), {"sdv1.4"})
    said = gain_sentence("a map of zeros", found["a map of zeros"])
    assert said.startswith(f"That is {reading}") and "than a map of zeros: " in said and "points of AUC" in said
    area = [roc_auc_score(p["label"][300:], p["logit"][300:]) for p in (ours, predicted(control))]
    assert found["a map of zeros"].value == pytest.approx(area[0] - area[1]), "on what was not trained on"


def test_near_copies_of_the_training_generator_count_apart() -> None:
    parts = [
        predicted(2.0, seed).with_columns(subset=pl.lit(name)) for seed, name in enumerate(("sdv1.4", "wukong", "adm"))
    ]
    ours = pl.concat(parts)
    found = verdict(ours, "x", {"x": subset_metrics(ours)}, {"sdv1.4"})
    assert found.lead.startswith(
        "On 1 generator of which the detector saw no image in training, nor of a near-copy, it"
    )
    assert any(
        "On wukong, of which it saw images of a near-copy in training" in sentence for sentence in found.sentences
    )
    assert any("On sdv1.4, of which it saw other images in training" in sentence for sentence in found.sentences)
    copies = ours.filter(pl.col("subset") != "adm")
    lead = verdict(copies, "x", {"x": subset_metrics(copies)}, {"sdv1.4"}).lead
    assert "saw no image in training, it puts" in lead, "near-copies where there is nothing else"


def test_the_control_stands_at_the_head() -> None:
    ours = predicted(2.0)
    found = gains_over(ours, {"zeros": predicted(3.0)}, subset_metrics(ours), {"sdv1.4"})
    keys = verdict(ours, "x", {"x": subset_metrics(ours)}, {"sdv1.4"}, found).keys
    (key,) = [key for key in keys if key.name == "AUC beyond zeros"]
    assert key.value.startswith("−") and key.interval.startswith("95 % interval −")


def test_the_last_words_name_the_worst_generator_and_the_next_step() -> None:
    ours = predicted(2.0)
    both = pl.concat([ours, ours.filter(subset="adm").with_columns(subset=pl.lit("glide"), logit=-pl.col("logit"))])
    first, *rest = closing("It works.", ["Over y."], None, subset_metrics(both), {"sdv1.4"})
    assert first == "It works." and rest[0] == "Over y."
    assert rest[1].startswith("It fails most on glide (AUC") and "reads no text" not in rest[1]
    assert "sare index --layout unlabelled" in rest[2]
    worst = pl.concat([ours.with_columns(logit=-pl.col("logit")).filter(subset="adm"), ours.filter(subset="sdv1.4")])
    worst = pl.concat([worst, ours.filter(subset="adm").with_columns(subset=pl.lit("glide"))])
    assert "on adm" in (said := closing("It works.", [], None, subset_metrics(worst), {"sdv1.4"})[1])
    assert "which reads no text" in said


def test_the_premise_is_what_comes_with_the_images(tmp_path: Path) -> None:
    assert premise_part(str(tmp_path)) is None
    (tmp_path / "premise.csv").write_text(
        "images,extras,captioner_right,fit_auc,kept,missed\n"
        "photographs,1.62,92.4,50,91,\nadm,1.5,88,41.3,90.5,extras_fewer fit_auc new\nmidjourney,0.1,99,61,97,\n"
    )
    found = premise_part(str(tmp_path))
    assert found is not None and found.photographs == (1.62, 92.4)
    assert found.rows == [("midjourney", 0.1, 61.0, 97.0, ""), ("adm", 1.5, 41.3, 90.5, "things, prompt, new")]


def test_a_control_stands_in_the_tables_and_the_sentences(made: Made, tmp_path: Path) -> None:
    settings = load_settings("mini", [*made.overrides, "train.seed=7"], "genimage")
    other = Pipeline(settings, made.pipeline.manifests, made.pipeline.work)
    index = read_index(made.pipeline.manifests, made.pipeline.dataset)
    predict(other, index, train_detector(other, index))
    made.again(control=["the same=train.seed=7"], out=str(tmp_path))
    page = (tmp_path / "index.html").read_text()
    assert "The detector beside its controls" in page and '<th scope="row">the same</th>' in page
    assert "That is neither more nor less for certain than the same: +0.0 points of AUC" in page
    assert "the same,sdv1.4" in (tmp_path / "tables" / "metrics.csv").read_text()


@pytest.mark.parametrize("control", ["zeros", "=a=b", "zeros=", "zeros=semantic_input"])
def test_a_control_is_a_name_and_a_setting(control: str, tmp_path: Path, made: Made) -> None:
    with pytest.raises(ConfigError, match="write it as NAME=SETTING"):
        made.again(control=[control], out=str(tmp_path))


@pytest.mark.parametrize(
    ("controls", "told"),
    [
        (["a=evaluate.batch_size=7", "a=evaluate.batch_size=5"], "--control a: is named twice"),
        (["x (paper)=evaluate.batch_size=7"], "a row of the tables has that name"),
        (["trivial (format, size, bytes)=evaluate.batch_size=7"], "a row of the tables has that name"),
        ([f"{'long ' * 20}=evaluate.batch_size=7"], "a name of at most 60 characters"),
        ([" =evaluate.batch_size=7"], "write it as NAME=SETTING"),
        (["self=evaluate.batch_size=7"], "makes this very detector"),
        (["zeros=detector.semantic_input=zero"], r"--control zeros=.*And: --set detector\.semantic_input=zero"),
        (["odd=detector.nothing=1"], r"--control odd=detector\.nothing=1: .*no setting"),
    ],
)
def test_a_control_that_would_mislead_is_refused(made: Made, tmp_path: Path, controls: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        made.again(control=controls, out=str(tmp_path))


def test_a_control_needs_the_settings_of_the_detector(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="goes with --preset and --set"):
        made.again(preset=None, detector="x", control=["zeros=detector.semantic_input=zero"], out=str(tmp_path))
