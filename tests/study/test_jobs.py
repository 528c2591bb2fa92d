import sys
import time

import pytest
from rich.console import Console

from sare_core.errors import StageError
from sare_core.study.jobs import Job, run_jobs

QUIET = Console(quiet=True)


def python(name, code):
    return Job(name, [sys.executable, "-c", code])


COUNTING = """
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
mine = folder / f"running-{os.getpid()}"
mine.touch()
time.sleep(0.5)
(folder / f"saw-{os.getpid()}").write_text(str(len([*folder.glob("running-*")])))
mine.unlink()
assert os.environ["OMP_NUM_THREADS"] == "1"
"""


def test_so_many_run_at_once_and_not_more(tmp_path):
    job = Job("count", [sys.executable, "-c", COUNTING, str(tmp_path)])
    run_jobs([job] * 5, 2, QUIET)
    seen = [int(path.read_text()) for path in tmp_path.glob("saw-*")]
    assert len(seen) == 5
    assert max(seen) == 2


def test_a_failure_is_told_with_its_last_words_and_stops_the_others():
    jobs = [python("long", "import time; time.sleep(60)"), python("bad", "import sys; print('why'); sys.exit(3)")]
    start = time.monotonic()
    with pytest.raises(StageError, match=r"bad ended with exit code 3:\nwhy"):
        run_jobs(jobs, 2, QUIET)
    assert time.monotonic() - start < 30
