import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from sare_core.engine.manifest import INDEX_SCHEMA, has_index, read_index
from sare_core.errors import ConfigError, Stopped
from sare_core.index import examine, scan
from sare_core.index.indexing import IndexReport, build_index
from stages.index import index
from tests.trees import forensynths_tree, generated, genimage_tree, nasty_files


def run(root: Path, manifests: Path, layout: str = "folder", **settings: object) -> IndexReport:
    settings = {"shard_size": 5, "holdout": 0.25, "workers": 1} | settings
    return build_index("it", layout, str(root), str(manifests), **settings)  # type: ignore[arg-type]


def contents(manifests: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (manifests / "it").iterdir() if path.suffix == ".parquet"}


def labelled(root: Path, per_label: int = 12, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for n in range(per_label):
        for split in ("train", "test"):
            generated(root / split / "real" / f"r{n}.png", rng, 16)
            generated(root / split / "fake" / "gen" / f"f{n}.png", rng, 16)
    return root


def table(report: IndexReport) -> dict[tuple[str, str], dict[str, int]]:
    return {(row["subset"], row["split"]): row for row in report.table.to_dicts()}


def test_rows_hold_what_the_files_are(tmp_path: Path) -> None:
    root = genimage_tree(tmp_path / "root", subsets=["adm", "sdv1.4"])
    report = run(root, tmp_path / "manifests", "genimage")
    frame = report.index.frame()
    assert frame.schema == INDEX_SCHEMA
    assert len(frame) == report.files == report.read == 32
    for row in frame.to_dicts():
        data = (root / row["path"]).read_bytes()
        pixels = Image.open(root / row["path"]).convert("RGB")
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert row["image_id"] == hashlib.sha256(b"%dx%d:" % pixels.size + pixels.tobytes()).hexdigest()[:20]
        assert (row["width"], row["height"], row["bytes"]) == (*pixels.size, len(data))
        assert row["mtime_ns"] == (root / row["path"]).stat().st_mtime_ns
        assert (row["format"], row["extension"], row["quality"]) == (
            ("JPEG", "jpg", 96) if row["label"] == 0 else ("PNG", "png", None)
        )
        assert (row["dataset"], row["mode"], row["error"], row["duplicates"]) == ("it", "RGB", None, [])
        held_out = int(row["image_id"][:8], 16) / 2**32 < 0.25
        assert row["split"] == ("test" if "/val/" in row["path"] else "val" if held_out else "train")
    assert set(frame["split"]) == {"train", "val", "test"}
    assert report.index.about["root"] == str(root)


def test_shards_are_of_one_subset_and_split_and_ordered(tmp_path: Path) -> None:
    root = genimage_tree(tmp_path / "root", per_cell=8, subsets=["adm", "wukong"])
    index = run(root, tmp_path / "manifests", "genimage").index
    frame = index.frame()
    assert frame["shard"].is_sorted() and frame["shard"].null_count() == 0
    cells = []
    for (_,), shard in frame.group_by("shard", maintain_order=True):
        assert shard["subset"].n_unique() == shard["split"].n_unique() == 1
        assert shard["image_id"].is_sorted() and shard["image_id"].n_unique() == len(shard) <= 5
        cells.append((shard["subset"][0], shard["split"][0]))
    order = {"train": 0, "val": 1, "test": 2}
    assert cells == sorted(cells, key=lambda cell: (cell[0], order[cell[1]]))
    assert index.shards["shard"].to_list() == list(range(len(cells)))
    for cell in set(cells):
        rows = frame.filter(pl.col("subset") == cell[0], pl.col("split") == cell[1])
        assert rows["image_id"].is_sorted()  # across its shards too
        assert len(rows) > 5 * (cells.count(cell) - 1)  # all shards but the last are full


@pytest.mark.timeout(60)
def test_bad_files_are_error_rows(tmp_path: Path) -> None:
    nasty = nasty_files(tmp_path / "root")
    report = run(tmp_path / "root", tmp_path / "manifests")
    frame = report.index.frame()
    assert (
        dict(
            frame.select(
                "path", pl.when(pl.col("error").is_null()).then(pl.lit("ok")).otherwise(pl.lit("error"))
            ).rows()
        )
        == nasty
    )
    errors = frame.filter(pl.col("error").is_not_null())
    assert errors["image_id"].null_count() == errors["shard"].null_count() == len(errors) == 6
    assert frame["error"].tail(6).null_count() == 0 and errors["path"].is_sorted()
    assert not any(str(tmp_path) in error for error in errors["error"])
    reasons = dict(errors.select("path", "error").rows())
    assert "0 bytes" in reasons["zero-bytes.png"] and "pipe" in reasons["pipe.jpg"]
    assert "nowhere.jpg" in reasons["dangling.jpg"] and "too large" in reasons["bomb.png"]
    turned = frame.row(by_predicate=pl.col("path") == "rotated.jpg", named=True)
    assert (turned["width"], turned["height"]) == (48, 64)
    assert table(report)["images", "test"]["errors"] == 6
    written = pl.read_csv(tmp_path / "manifests" / "it" / "problems.csv")
    assert written.equals(report.problems) and set(written["path"]) == set(errors["path"])


def test_the_number_of_workers_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = labelled(tmp_path / "root")
    nasty_files(root / "train" / "real")
    run(root, tmp_path / "one")
    monkeypatch.setattr(examine, "CHUNK", 3)
    run(root, tmp_path / "several", workers=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "several")


def test_duplicates_are_one_row(tmp_path: Path) -> None:
    root = labelled(tmp_path / "root")
    shutil.copy(root / "train" / "real" / "r0.png", root / "train" / "real" / "copy.png")
    pixels = Image.open(root / "test" / "fake" / "gen" / "f3.png")
    pixels.save(root / "train" / "fake" / "gen" / "leak.bmp")  # the same pixels in another file
    report = run(root, tmp_path / "manifests")
    frame = report.index.frame()
    assert len(frame) == 48
    duplicates = {row["path"]: row["duplicates"] for row in frame.to_dicts() if row["duplicates"]}
    assert duplicates == {
        "train/real/copy.png": ["train/real/r0.png"],
        "test/fake/gen/f3.png": ["train/fake/gen/leak.bmp"],
    }
    assert report.table["duplicates"].sum() == 2 and report.table["leaks"].sum() == 1
    assert report.problems.rows() == [
        ("train/fake/gen/leak.bmp", "left out of training: same pixels as the test image test/fake/gen/f3.png")
    ]
    assert run(root, tmp_path / "manifests").read == 0  # copies have no row, yet are not read again


def test_label_conflicts_are_errors(tmp_path: Path) -> None:
    root = labelled(tmp_path / "root")
    shutil.copy(root / "train" / "real" / "r0.png", root / "test" / "fake" / "gen" / "same.png")
    report = run(root, tmp_path / "manifests")
    errors = report.index.frame().filter(pl.col("error").is_not_null())
    assert errors.select("path", "error", "image_id", "shard").rows() == [
        (
            "test/fake/gen/same.png",
            "label conflict: same pixels as train/real/r0.png, which is labelled real",
            None,
            None,
        ),
        (
            "train/real/r0.png",
            "label conflict: same pixels as test/fake/gen/same.png, which is labelled fake",
            None,
            None,
        ),
    ]
    assert report.table["conflicts"].sum() == 2 and report.table["errors"].sum() == 0
    assert len(report.problems) == 2
    (root / "test" / "fake" / "gen" / "same.png").unlink()
    mended = run(root, tmp_path / "manifests")
    assert mended.index.frame()["error"].null_count() == 48 and mended.read == 0


def test_the_same_image_in_two_subsets(tmp_path: Path) -> None:
    root = tmp_path / "root"
    generated(root / "fake" / "a" / "1.png", rng := np.random.default_rng(0))
    generated(root / "fake" / "b" / "2.png", rng)
    generated(root / "real" / "3.png", rng)
    shutil.copy(root / "fake" / "a" / "1.png", root / "fake" / "b" / "1.png")  # the same fake: two rows
    shutil.copy(root / "fake" / "a" / "1.png", root / "real" / "1.png")  # real there: told, kept
    report = run(root, tmp_path / "manifests")
    assert report.index.frame()["error"].null_count() == 5
    assert dict(report.problems.rows()) == {
        "fake/a/1.png": "labelled fake here, real in another subset as real/1.png: both are kept",
        "fake/b/1.png": "labelled fake here, real in another subset as real/1.png: both are kept",
    }


def test_a_shared_test_image_is_told(tmp_path: Path) -> None:
    generated(tmp_path / "root" / "1.png", np.random.default_rng(0))
    text = "path,label,subset,split\n1.png,0,a,train\n1.png,0,b,test\n"
    (tmp_path / "root" / "table.csv").write_text(text)
    report = run(tmp_path / "root" / "table.csv", tmp_path / "manifests", holdout=0)
    assert report.index.frame().select("subset", "split").rows() == [("a", "train"), ("b", "test")]
    assert report.problems.rows() == [("", "1 test images are training images of another subset; the first is 1.png")]
    assert report.read == report.files == 1


def test_indexing_again_leaves_old_shards_alone(tmp_path: Path) -> None:
    root, manifests = labelled(tmp_path / "root"), tmp_path / "manifests"
    first = run(root, manifests)
    assert run(root, manifests).read == 0
    unchanged = read_index(str(manifests), "it")
    assert (unchanged.images, unchanged.about) == (first.index.images, first.index.about)

    before = first.index.frame()
    gone = before.filter(pl.col("split") == "test")["path"][0]
    (root / gone).unlink()
    changed = before.filter(pl.col("split") == "test")["path"][1]
    generated(root / changed, np.random.default_rng(99), 24)
    labelled(root / "more", per_label=2, seed=5)
    (root / "more" / "test" / "real").rename(root / "test" / "real" / "more")
    (root / "more" / "train" / "fake" / "gen").rename(root / "train" / "fake" / "gen" / "more")
    shutil.rmtree(root / "more")
    second = run(root, manifests)
    assert second.read == 1 + 2 + 2
    after = second.index.frame()
    shards = dict(before.select("path", "shard").rows())
    for path, shard in after.select("path", "shard").rows():
        if path in shards and path != changed:
            assert shard == shards[path]
        else:
            assert shard >= first.index.about["next_shard"]
    assert len(after) == 48 - 1 + 4 and gone not in after["path"]

    # A number once used is not used again, even when its shard is gone.
    shutil.rmtree(root / "test" / "real" / "more")
    (root / changed).unlink()
    third = run(root, manifests)
    assert third.index.shards["shard"].max() < second.index.shards["shard"].max()
    generated(root / changed, np.random.default_rng(100), 24)
    fourth = run(root, manifests)
    assert fourth.index.frame().filter(pl.col("path") == changed)["shard"].item() >= second.index.about["next_shard"]


def test_a_moved_root_is_the_same_dataset(tmp_path: Path) -> None:
    root = labelled(tmp_path / "root", per_label=3)
    before = run(root, tmp_path / "manifests").index
    root.rename(tmp_path / "moved")
    after = run(tmp_path / "moved", tmp_path / "manifests")
    assert after.read == 0 and after.index.images == before.images
    assert after.index.about["root"] == str(tmp_path / "moved")


def test_a_name_is_of_one_dataset(tmp_path: Path) -> None:
    first = run(labelled(tmp_path / "one", per_label=3), tmp_path / "manifests").index
    other = labelled(tmp_path / "two", per_label=3, seed=1)
    message = (
        r"indexed from .*/one, of whose 12 images .*/two holds 0: other data.*Use another --name.*delete the folder"
    )
    for path in other.rglob("*.png"):
        path.write_bytes(path.read_bytes() + bytes(1000))  # the same names, and other sizes
    with pytest.raises(ConfigError, match=message):
        run(other, tmp_path / "manifests")
    assert read_index(str(tmp_path / "manifests"), "it").images == first.images
    shutil.rmtree(other)
    shutil.copytree(tmp_path / "one", other)  # moved, with new times, and one image changed
    generated(other / "train" / "real" / "r0.png", np.random.default_rng(9), 16)
    assert run(other, tmp_path / "manifests").index.about["source"] == str(other)
    (other / "train" / "real" / "r1.png").unlink()  # at the same root anything may change
    for name in ("train", "test"):
        shutil.rmtree(other / name / "fake")
    assert run(other, tmp_path / "manifests").index.about["images"] == 5


def test_a_second_table_of_the_same_folder_is_other_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(4):
        generated(tmp_path / f"{n}.png", rng, 16)
    (tmp_path / "a.csv").write_text("path\n0.png\n1.png\n")
    (tmp_path / "b.csv").write_text("path\n2.png\n3.png\n")
    (tmp_path / "longer.csv").write_text("path\n0.png\n1.png\n2.png\n")
    run(tmp_path / "a.csv", tmp_path / "manifests")
    with pytest.raises(ConfigError, match=r"indexed from .*/a.csv, of whose 2 images .*/b.csv holds 0"):
        run(tmp_path / "b.csv", tmp_path / "manifests")
    assert run(tmp_path / "longer.csv", tmp_path / "manifests").read == 1


def test_errors_are_tried_again(tmp_path: Path) -> None:
    root = labelled(tmp_path / "root", per_label=3)
    (root / "test" / "real" / "late.png").symlink_to("late-target.txt")
    assert run(root, tmp_path / "manifests").index.about["errors"] == 1
    shutil.copy(root / "test" / "real" / "r0.png", root / "test" / "real" / "late-target.txt")
    report = run(root, tmp_path / "manifests")
    assert (report.read, report.index.about["errors"]) == (1, 0)


@pytest.mark.parametrize(("name", "value"), [("shard_size", 6), ("holdout", 0.5), ("layout", "genimage")])
def test_other_settings_are_refused(tmp_path: Path, name: str, value: object) -> None:
    root = labelled(tmp_path / "root", per_label=3)
    run(root, tmp_path / "manifests")
    with pytest.raises(ConfigError, match=f"indexed with {name} .* now {value}.*--name"):
        run(root, tmp_path / "manifests", **{name: value})


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with pytest.raises(ConfigError, match="among 0 files"):
        run(tmp_path / "root", tmp_path / "manifests")
    (tmp_path / "root" / "a.png").write_text("no image")
    with pytest.raises(ConfigError, match=r"among 1 files. The first of them, a.png: is not an image"):
        run(tmp_path / "root", tmp_path / "manifests")
    assert not has_index(str(tmp_path / "manifests"), "it")
    for name in ("Upper", "a/b", "", "expected"):
        with pytest.raises(ConfigError, match="name"):
            build_index(name, "folder", str(tmp_path / "root"), str(tmp_path / "manifests"))


def test_deviations_from_the_known_counts(tmp_path: Path) -> None:
    sample = genimage_tree(tmp_path / "root", per_cell=2, subsets=["sdv1.4"])
    assert run(sample, tmp_path / "manifests", "genimage").deviations == [], "a sample is not a damaged GenImage"
    forensynths = forensynths_tree(tmp_path / "forensynths", per_cell=181, folders=["seeingdark"])
    assert build_index("f", "forensynths", str(forensynths), str(tmp_path / "manifests"), workers=1).deviations[:2] == [
        "sitd test/real: 181, 1 more than the 180 known (from the literature, unchecked)",
        "sitd test/fake: 181, 1 more than the 180 known (from the literature, unchecked)",
    ]


SLOW_INDEX = """
import sys, time
from sare_core.index import examine, scan
from sare_core.errors import Stopped
from sare_core.index.indexing import build_index

def slow(data, name, decode=examine.decode):
    time.sleep(0.1)
    return decode(data, name)

scan.JOURNAL_ROWS, examine.CHUNK, examine.decode = 10, 5, slow  # in the workers too: they import this file
if __name__ == "__main__":
    try:
        build_index("it", "folder", sys.argv[1], sys.argv[2], 5, 0.25, workers=int(sys.argv[3]))
    except Stopped as stopped:
        sys.exit(128 + stopped.signum)
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("workers", "kill", "signum", "status"),
    [
        (1, os.kill, signal.SIGKILL, -signal.SIGKILL),
        (2, os.kill, signal.SIGKILL, -signal.SIGKILL),
        (2, os.killpg, signal.SIGTERM, 128 + signal.SIGTERM),  # as a batch system ends a job: every process gets it
    ],
)
def test_a_killed_run_goes_on(
    tmp_path: Path, workers: int, kill: Callable[[int, int], None], signum: int, status: int
) -> None:
    root = labelled(tmp_path / "root")
    nasty_files(root / "train" / "real")
    run(root, tmp_path / "undisturbed")
    (tmp_path / "slow.py").write_text(SLOW_INDEX)
    command = [sys.executable, tmp_path / "slow.py", root, tmp_path / "killed", str(workers)]
    killed = subprocess.Popen(command, start_new_session=True, env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    journal = tmp_path / "killed" / "it" / "scan"
    while not (journal / "00001.parquet").exists():
        assert killed.poll() is None
        time.sleep(0.01)
    kill(killed.pid, signum)
    assert killed.wait(120) == status
    _wait_until_nobody_is_left(killed.pid)
    rows = pl.concat(pl.read_parquet(path) for path in journal.glob("*.parquet"))
    assert len(rows) >= 20 and not has_index(str(tmp_path / "killed"), "it")

    report = run(root, tmp_path / "killed")
    assert report.read == report.files - rows["error"].null_count()
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")
    assert not list(journal.glob("*"))


def _wait_until_nobody_is_left(session: int) -> None:
    """Workers of a killed process must end by themselves."""
    for _ in range(100):
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(session, signal.SIGKILL)
    pytest.fail("worker processes outlive their killed parent")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_cleanly(
    tmp_path: Path, signum: signal.Signals, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = labelled(tmp_path / "root")
    run(root, tmp_path / "undisturbed")
    advanced: list[int] = []

    @contextmanager
    def signal_after_ten(*args: object, **kwargs: object) -> Iterator[Callable[[int], None]]:
        def advance(count: int) -> None:
            advanced.append(count)
            if sum(advanced) >= 10 > sum(advanced[:-1]):
                os.kill(os.getpid(), signum)

        yield advance

    monkeypatch.setattr(scan, "bar", signal_after_ten)
    with pytest.raises(Stopped) as stopped:
        run(root, tmp_path / "stopped", workers=workers)
    assert stopped.value.signum == signum
    assert 10 <= sum(advanced) < 48
    monkeypatch.undo()
    assert run(root, tmp_path / "stopped").read == 48 - sum(advanced)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "undisturbed")


def test_the_command(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(index)
    root = labelled(tmp_path / "root", per_label=3)
    nasty_files(root / "train" / "real")
    for n in range(8):
        (root / "train" / "real" / f"bad{n}.png").touch()
    arguments = ["--layout", "folder", "--root", root, "--name", "it", "--workers", "1"]
    result = CliRunner().invoke(
        app, list(map(str, arguments)), env={"SARE_MANIFESTS": str(tmp_path / "m"), "COLUMNS": "200"}
    )
    assert result.exit_code == 0, result.output
    assert "35 of 35 files read" in result.output and "14 problems in all" in result.output
    assert read_index(str(tmp_path / "m"), "it").about["errors"] == 14


def test_a_journal_file_cut_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    root, journal = labelled(tmp_path / "root"), tmp_path / "m" / "it" / "scan"
    journal.mkdir(parents=True)
    (journal / ".00000.parquet.host.7.tmp").write_bytes(b"PAR1 cut")
    run(root, tmp_path / "m")
    assert not list(journal.glob("*")) and not list(journal.glob(".*"))
