"""Names that would steer a terminal, be taken for markup, or break a table or a page: through all commands."""

import re
import unicodedata
from pathlib import Path

import polars as pl
import pytest

from sare_core.config import load_settings
from sare_core.engine.audit import folders
from sare_core.engine.manifest import read_index
from stages import caption, evaluate, index, reconstruct, report, retry, status
from tests.pipeline import Pipeline
from tests.report.forged import (
    ForgedCaptions,
    ForgedPredictions,
    ForgedReconstructions,
    pictures,
    settings_of,
    train_detector,
)

SUBSET = "$a^{b$ x[/nope][red]:smile: |`<b>*\x1b[31m\r\x07\u202e\u2066\n# [new](http://there)"
SHOWN = r"$a^{b$ x[/nope][red]:smile: |`<b>*\x1b[31m\r\x07\u202e\u2066"  # and then a line break


def hidden(text: str) -> set[str]:
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n"}


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What each command prints on such a dataset in such a work folder."""
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr("sare_core.captioning.stage.CaptionStage", ForgedCaptions)
    monkeypatch.setattr("sare_core.reconstruction.stage.ReconstructStage", ForgedReconstructions)
    monkeypatch.setattr("sare_core.graph.PredictStage", ForgedPredictions)
    root = pictures(tmp_path / "pictures[/b]\x1b[31m", ["sdv1.4"], test=3)
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*.[pP]*"))
    rows = [
        (path, int("/ai/" in path), SUBSET, "test" if "/val/" in path else "train") for path in [*files, "gone\x1b.png"]
    ]
    pl.DataFrame(rows, ["path", "label", "subset", "split"], orient="row").write_parquet(root / "table.parquet")

    overrides = settings_of(tmp_path / "models", "train_subsets=null")
    here = {"work": str(tmp_path / "w[/b]\x1b[1m"), "manifests": str(tmp_path / "m[/i]")}
    found = {}

    def says(name: str) -> None:
        found[name] = capsys.readouterr().out

    index.index("folder", str(root / "table.parquet"), "tree", manifests=here["manifests"], workers=1)
    says("index")
    for stage in (caption.caption, reconstruct.reconstruct):
        stage("tree", "mini", overrides, **here)
        says(stage.__name__)
    retry.retry_failed("tree", "mini", overrides, **here)
    says("retry")
    pipeline = Pipeline(load_settings("mini", overrides), here["manifests"], here["work"])
    train_detector(pipeline, read_index(here["manifests"], "tree"))
    for stage in (evaluate.evaluate, report.report):
        stage("tree", "mini", overrides, **here)
        says(stage.__name__)
    status.status(**here)
    says("status")
    return found


def test_the_terminal_shows_them_as_they_are(said: dict[str, str], tmp_path: Path) -> None:
    for command, text in said.items():
        assert not hidden(text), command
    for command in ("index", "evaluate"):
        assert SHOWN in said[command], command
    assert r"gone\x1b.png" in said["index"]
    for command in ("caption", "reconstruct", "retry", "evaluate", "report"):
        assert str(tmp_path / r"w[/b]\x1b[1m") in said[command], command
    assert "captions" in said["status"]

    (tables,) = Path(tmp_path / "w[/b]\x1b[1m").rglob("tables.md")
    text = tables.read_text()
    assert not hidden(text)
    lines = text.splitlines()
    head, rule, *rows = lines[lines.index(next(line for line in lines if line.startswith("| Detector"))) :][:4]
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in (head, rule, *rows)]
    assert cells == [4, 4, 4, 4], "Detector, the subset, Avg"
    assert r" \|\`\<b>\*\\x1b[31m" in head
    assert r"[new]\(http" in head

    (folder,) = [folder for folder in folders(str(tmp_path / "w[/b]\x1b[1m")) if folder.stage == "predictions"]
    csv = pl.read_csv(folder.store.read("metrics.csv"))
    assert SUBSET in csv["subset"].to_list(), "data are data: they keep every character"

    (page,) = Path(tmp_path / "w[/b]\x1b[1m").rglob("index.html")
    text = page.read_text()
    assert not hidden(text)
    assert "<b>" not in text
    assert text.count(r"x[/nope][red]:smile: |`&lt;b&gt;*\x1b[31m\r\x07\u202e\u2066") > 4
    assert "$a^{b$ x[/nope][red]…" in text, "figures cut it"
