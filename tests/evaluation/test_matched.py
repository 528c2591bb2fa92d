import polars as pl

from sare_core.evaluation.matched import matching_note, with_strata
from sare_core.evaluation.metrics import PREDICTION_SCHEMA, subset_metrics
from tests.builders import index_frame, index_row


def stratified(**columns: list) -> pl.DataFrame:
    rows = [index_row(n, 0) | {key: values[n] for key, values in columns.items()} for n in range(4)]
    images = [(row["image_id"], "gen", row["label"], float(n), 0.5) for n, row in enumerate(rows)]
    return with_strata(pl.DataFrame(images, schema=PREDICTION_SCHEMA, orient="row"), index_frame(*rows))


def strata(**columns: list) -> list[int]:
    return stratified(**columns)["stratum"].to_list()


def test_a_stratum_is_of_one_format_and_about_one_size():
    assert len(set(strata())) == 1
    assert strata(format=["PNG", "JPEG", "PNG", "JPEG"]) == [1, 0, 1, 0]
    near = strata(width=[500, 512, 256, 260], height=[500, 512, 256, 260])
    assert near[0] == near[1] != near[2] == near[3]
    turned = strata(width=[400, 400, 300, 300], height=[300, 300, 400, 400])
    assert turned[0] == turned[1] != turned[2]


def test_the_note_says_how_many_pairs_are_left():
    assert matching_note(subset_metrics(stratified())) is None
    apart = subset_metrics(stratified(format=["PNG", "JPEG", "PNG", "JPEG"]))
    assert "--views jpeg:96" in (matching_note(apart) or "")
    half = subset_metrics(stratified(format=["PNG", "PNG", "JPEG", "JPEG"]))
    assert "50 to 50 %" in (matching_note(half) or "")
    alone = subset_metrics(stratified(label=[1, 1, 1, 1]))
    assert matching_note(alone) is None
