"""A report of a run in which images were lost on the way: a message or a page that says so."""

from pathlib import Path

import polars as pl
import pytest

from sare_core.engine.audit import folders
from sare_core.engine.folders import Failure, Output
from sare_core.engine.shardfiles import ParquetWriter
from sare_core.errors import ConfigError
from sare_core.evaluation.predict import SCHEMA
from sare_core.report.measures import MEASURES
from sare_core.report.parts import shift_part
from sare_core.store.storage import sha256_file
from stages.evaluate import evaluate
from tests.report.conftest import Made
from tests.report.test_report import copied


def test_without_any_prediction_there_is_nothing_to_report(made: Made, tmp_path: Path) -> None:
    here = copied(made, tmp_path)
    (folder,) = [folder for folder in folders(here.pipeline.work, "tree") if folder.stage == "predictions"]
    ParquetWriter(tmp_path / "empty", SCHEMA).close()
    digest = sha256_file(tmp_path / "empty")
    for shard, record in folder.records().items():
        name = f"{shard:05d}-{digest[:12]}.parquet"
        folder.store.write(name, (tmp_path / "empty").read_bytes())
        record.output = Output(name=name, bytes=(tmp_path / "empty").stat().st_size, sha256=digest)
        record.failures = [Failure(image_id=str(n), path="x", reason="it has no SARE map") for n in range(record.ok)]
        record.ok = 0
        folder.commit(record)
    with pytest.raises(ConfigError, match=r"none of the test images has a prediction.*sare status shows why"):
        here.again(out=str(here.folder))
    assert not here.folder.exists()
    evaluate("tree", "mini", made.overrides, work=here.pipeline.work, manifests=here.pipeline.manifests)
    tables = folder.store.read("tables.md").decode()
    assert "72 test images have no prediction" in tables
    assert "No labels" not in tables, "they have labels"


def test_maps_of_other_images_with_and_without_captions_are_not_compared() -> None:
    def maps(*ids: str) -> pl.DataFrame:
        rows = [("a.tar", image_id, "adm", label, 3.0, None) for image_id in ids for label in (0, 1)]
        return pl.DataFrame(rows, MEASURES, orient="row")

    part = shift_part({"with": maps("a", "b"), "without": maps("c", "d")}, "")
    assert (part.figures, part.missing) == ([], "Left out: no image has a map both with and without captions.")
    assert len(shift_part({"with": maps("a", "b"), "without": maps("b", "c")}, "").figures) == 2
