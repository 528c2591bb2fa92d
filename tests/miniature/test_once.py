"""A folder that is built once: whole or not at all, and never in the place of something else."""

import subprocess
import sys

import pytest

from sare_core.errors import ConfigError
from sare_core.miniature.once import built_once


def build(folder, content, recipe):
    """True if there was anything to do."""
    with built_once(folder, recipe) as partial:
        if partial:
            (partial / "weights").write_text(content)
    return partial is not None


def test_built_once_for_a_recipe_and_anew_for_another(tmp_path):
    folder = tmp_path / "models"
    assert build(folder, "first", {"version": 1})
    assert not build(folder, "again", {"version": 1})
    assert (folder / "weights").read_text() == "first"
    assert build(folder, "second", {"version": 2})
    assert (folder / "weights").read_text() == "second"
    assert list(tmp_path.iterdir()) == [folder]


def test_never_over_something_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match=r"thesis\.txt: was not written by"):
        build(tmp_path, "weights", {"version": 1})
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("thesis.txt", "precious")]


@pytest.mark.parametrize("before", [False, True])
def test_an_interrupted_build_leaves_no_half_folder(tmp_path, before):
    folder = tmp_path / "models"
    if before:
        build(folder, "first", {"version": 1})
    with pytest.raises(OSError, match="disk full"), built_once(folder, {"version": 2}) as partial:
        (partial / "weights").write_text("half")
        raise OSError("disk full")
    assert list(tmp_path.rglob("weights")) == ([folder / "weights"] if before else [])
    assert list(tmp_path.iterdir()) == ([folder] if before else [])


def test_a_file_of_someone_else_is_not_lost_to_a_new_recipe(tmp_path):
    folder = tmp_path / "models"
    build(folder, "first", {"version": 1})
    (folder / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match=r"mine\.txt: was not written by"):
        build(folder, "second", {"version": 2})
    assert (folder / "mine.txt").read_text() == "precious"


def test_what_is_missing_or_cut_short_is_built_again(tmp_path):
    folder = tmp_path / "models"
    for damage in ((folder / "weights").unlink, lambda: (folder / "weights").write_text("f")):
        build(folder, "first", {"version": 1})
        damage()
        assert build(folder, "first", {"version": 1})
        assert (folder / "weights").read_text() == "first"


def test_a_link_stays_and_its_folder_is_replaced(tmp_path):
    (tmp_path / "big disk").mkdir()
    link = tmp_path / "models"
    link.symlink_to(tmp_path / "big disk")
    build(link, "first", {"version": 1})
    assert build(link, "second", {"version": 2})
    assert link.is_symlink() and (tmp_path / "big disk" / "weights").read_text() == "second"


@pytest.mark.parametrize("marker", ["null", "[]", '{"recipe": {}, "files": null}', '{"recipe": {}, "files": [1]}'])
def test_a_damaged_marker_is_none(tmp_path, marker):
    folder = tmp_path / "models"
    build(folder, "first", {"version": 1})
    (folder / "miniature.json").write_text(marker)
    with pytest.raises(ConfigError, match="was not written by the miniature builder"):
        build(folder, "first", {"version": 1})


def test_what_a_killed_build_left_is_removed_and_that_of_one_that_runs_is_not(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid in (gone.pid, 1):
        (tmp_path / f".models.{pid}.partial").mkdir()
    build(tmp_path / "models", "first", {"version": 1})
    assert {path.name for path in tmp_path.iterdir()} == {"models", ".models.1.partial"}
