"""Each file of stages/ can be started by its path, as `python stages/caption.py` or by accelerate: its folder then
comes before the standard library's, so no file there may have a name that something else is imported by."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
FILES = sorted((REPOSITORY / "stages").glob("*.py"))
STARTED = [file for file in FILES if "__main__" in file.read_text()]

HELP = """
import runpy, sys
for file in sys.argv[1:]:
    sys.argv = [file, "--help"]
    try:
        runpy.run_path(file, run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
"""


def test_no_stage_has_the_name_of_a_module_of_the_standard_library() -> None:
    assert len(STARTED) > 10
    assert {file.stem for file in FILES} & sys.stdlib_module_names == set()


def test_each_stage_starts_by_its_path() -> None:
    path = os.pathsep.join([str(REPOSITORY / "stages"), str(REPOSITORY)])  # as for a script: its folder, then the clone
    done = subprocess.run(
        [sys.executable, "-c", HELP, *map(str, STARTED)],
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "100"},
        cwd=REPOSITORY.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for file in STARTED:
        assert f"Usage: {file.name}" in done.stdout
