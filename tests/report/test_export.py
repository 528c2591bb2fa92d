"""`sare export` of a forged run: which files lie there, what they hold, and what it refuses."""

import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer
import webdataset
from PIL import Image

from sare_core.config import load_settings
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import read_index
from sare_core.engine.signals import Stopped
from sare_core.errors import ConfigError, StageError
from sare_core.graph import Graph
from sare_core.report.export import safe_name
from stages import export as command
from tests.report.conftest import SUBSETS, Made
from tests.report.test_report import copied

EVERYTHING = [command.What.sare, command.What.reconstruction, command.What.image]


def export(made: Made, out: Path, **options: Any) -> None:
    where = {"work": made.pipeline.work, "manifests": made.pipeline.manifests}
    command.export(made.pipeline.dataset, str(out), "mini", made.overrides, **where | options)


def maps(made: Made) -> Folder:
    return Graph(load_settings("mini", made.overrides), made.pipeline.dataset, made.pipeline.work).reconstructions


def samples(folder: Folder) -> dict[str, dict[str, Any]]:
    urls = [str(folder.store.local(r.output.name)) for r in folder.records().values() if r.output]
    return {s["__key__"]: s for s in webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)}


def tree(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_nothing_is_there_yet(made: Made, tmp_path: Path) -> None:
    with pytest.raises(
        StageError, match=r"no shard's maps are done \(open \(waits for captions\)\)\. Run `sare reconstr"
    ):
        export(made, tmp_path / "out", work=str(tmp_path / "work"))
    assert not (tmp_path / "out").exists()


def test_every_file_is_the_member_of_the_tar_and_captions_lie_beside(made: Made, tmp_path: Path) -> None:
    folder = maps(made)
    folder.store.write("00000-0123456789ab.tar", b"named by no record, so never read")
    try:
        export(made, tmp_path / "out", what=EVERYTHING)
    finally:
        folder.store.delete("00000-0123456789ab.tar")
    found, expected = tree(tmp_path / "out"), {}
    for key, sample in samples(folder).items():
        about = json.loads(sample["json"])
        stem = f"{about['subset']}/{('real', 'fake')[about['label']]}/{key}"
        expected |= {f"{stem}.{name}": sample[name] for name in ("sare.png", "reconstruction.png")}
        expected[f"{stem}.png"] = sample["png"]
    table = pl.read_csv(io.BytesIO(found.pop("captions.csv")), infer_schema=False).fill_null("")
    assert found == expected
    assert {name.split("/")[0] for name in found} == set(SUBSETS)
    assert sorted(table["files"]) == sorted({name.split(".sare")[0] for name in found if ".sare" in name})
    captions = {key: json.loads(sample["json"])["caption"] for key, sample in samples(folder).items()}
    assert dict(zip(table["image_id"], table["caption"], strict=True)) == captions
    assert table["reconstructions"].unique().to_list() == [folder.fingerprint]


def test_a_choice_can_be_added_to(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    export(made, out, limit=2)
    few = tree(out)
    assert len(few) == len(SUBSETS) * 2 * 2 + 1, "of each subset two real, two fake; and captions.csv"
    times = {name: (out / name).stat().st_mtime_ns for name in few if name != "captions.csv"}
    assert "12 files written" in capsys.readouterr().out
    export(made, out, limit=2)
    assert tree(out) == few
    assert "12 images, 0 files written" in capsys.readouterr().out
    row = read_index(made.pipeline.manifests, "tree").frame().filter(pl.col("split") == "test").to_dicts()[-1]
    export(made, out, image=[row["image_id"]], what=[command.What.image])
    added = tree(out)
    assert set(added) - set(few) == {f"{row['subset']}/{('real', 'fake')[row['label']]}/{row['image_id']}.png"}
    assert {name: (out / name).stat().st_mtime_ns for name in times} == times
    assert len(pl.read_csv(out / "captions.csv")) == 13
    export(made, tmp_path / "one", shard="2")
    assert {name.split("/")[0] for name in tree(tmp_path / "one")} - {"captions.csv"} < set(SUBSETS)


def test_another_file_is_never_overwritten(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(made, out, limit=1)
    name = min(name for name in tree(out) if name.endswith(".sare.png"))
    (out / name).write_bytes(b"mine")
    with pytest.raises(ConfigError, match=f"{name}: is there already, with another content"):
        export(made, out)
    assert (out / name).read_bytes() == b"mine"
    for content, says in (
        ("my,own\n1,2\n", "not written by sare export"),
        ("", "not written by sare export"),
        ((out / "captions.csv").read_text().replace(maps(made).fingerprint, "0" * 12), "of other reconstructions"),
    ):
        (out / "captions.csv").write_text(content)
        with pytest.raises(ConfigError, match=says):
            export(made, out)
        assert (out / "captions.csv").read_text() == content


def test_a_stop_leaves_whole_files_and_their_captions(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen = tmp_path / "out", [0]

    def stop_at_the_fifth() -> None:
        seen[0] += 1
        if seen[0] == 5:
            raise Stopped(15)

    monkeypatch.setattr(command, "check_stop", stop_at_the_fifth)
    with pytest.raises(Stopped):
        export(made, out)
    assert len(pl.read_csv(out / "captions.csv")) == 4
    for name in tree(out):
        if name.endswith(".png"):
            Image.open(out / name).load()
    export(made, out)
    export(made, tmp_path / "whole")
    assert tree(out) == tree(tmp_path / "whole")


def test_what_is_not_there_is_named(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = copied(made, tmp_path)
    folder = maps(here)
    folder.store.delete("records/00000.json")
    with pytest.raises(typer.Exit) as end:
        export(here, tmp_path / "out", image=None)
    assert end.value.exit_code == 1
    assert "shard 0 has no maps: open" in capsys.readouterr().out
    with pytest.raises(typer.Exit):
        export(here, tmp_path / "none", image=["0" * 20])
    assert f"image {'0' * 20} has no map" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
    for shard, record in folder.records().items():
        folder.commit(record.model_copy(update={"shard": shard, "fields": ["json", "sare.png"]}))
    with pytest.raises(ConfigError, match="keep_reconstruction is off"):
        export(here, tmp_path / "none", what=EVERYTHING)


def test_names_stay_below_the_folder() -> None:
    names = ["sdv1.4", "a/b", "..", ".hidden", "a\\b", "x\x1b[31m\n", "Übung 1", "50%", "%2E"]
    safe = [safe_name(name) for name in names]
    assert safe == ["sdv1.4", "a%2Fb", "%2E.", "%2Ehidden", "a%5Cb", "x%1B%5B31m%0A", "Übung 1", "50%25", "%252E"]
