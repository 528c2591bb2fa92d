"""Progress in a file and in a terminal, by a process of its own whose stdout is the one or the other."""

import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

# Each line on stdin: how many seconds the clock moves on, how many images are done, and a note.
SCRIPT = """
import sys, time
from sare_core.engine.progress import bar
from sare_core.engine.terminal import PlainConsole

now, clock = [0.0], time.monotonic
if sys.argv[3] == "forged clock":
    time.monotonic = lambda: now[0]
with bar(PlainConsole(), sys.argv[1], int(sys.argv[2]), done=1000) as advance:
    for line in sys.stdin:
        seconds, count, note = line.rstrip("\\n").split(";")
        now[0] += float(seconds)
        advance(int(count), note)
        if note == "fail":
            raise SystemExit("it failed")
"""
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d "


def start(title: str, total: int, stdout: int, clock: str = "forged clock") -> "subprocess.Popen[str]":
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm", "FORCE_COLOR": "1"}  # as CI sets it
    command = [sys.executable, "-c", SCRIPT, title, str(total), clock]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.DEVNULL, env=environment, text=True
    )


def until(held: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not held():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_a_log_has_a_line_a_minute_and_each_is_there_at_once(log: Path) -> None:
    with log.open("w") as file:
        process = start("caption", 17_000, file.fileno())
    assert process.stdin is not None

    def say(*lines: str) -> None:
        print(*lines, sep="\n", file=process.stdin, flush=True)

    until(lambda: log.read_text().endswith("caption: 1,000 of 17,000 images\n"))  # before anything is done
    say("50;1;")  # models are loaded: the rate is from here on
    say(*["1;2;"] * 9)
    say("1;2;epoch 0.1/3")
    until(lambda: log.read_text().count("\n") == 2)
    say(*["1;2;"] * 59)
    process.stdin.close()
    assert process.wait(120) == 0
    lines = log.read_text().splitlines()
    assert all(re.match(STAMP + "caption: ", line) for line in lines)
    assert [re.sub(f"^{STAMP}", "", line) for line in lines] == [
        "caption: 1,000 of 17,000 images",
        "caption: 1,021 of 17,000 images, 2.0/s, ETA 2:13:10, epoch 0.1/3",
        "caption: 1,139 of 17,000 images, 2.0/s, took 0:01:59",
    ]


def test_a_log_of_work_that_ends_early_says_how_far_it_came(log: Path) -> None:
    with log.open("w") as file:
        process = start("x[/b]\x1b[31m", 2000, file.fileno())
    process.communicate("1;10;fail\n", timeout=120)
    first, last = log.read_text().splitlines()
    assert first.endswith(r" x[/b]\x1b[31m: 1,000 of 2,000 images")
    assert last.endswith(r" x[/b]\x1b[31m: 1,010 of 2,000 images, 10.0/s, took 0:00:01")


@pytest.mark.parametrize("title", ["caption", "reconstructions (rank 0 of 16)"])
def test_a_terminal_of_80_columns_has_a_bar_and_all_words(title: str) -> None:
    ours, theirs = pty.openpty()
    process = start(title, 1_600_000, theirs, "real clock")
    os.close(theirs)
    assert process.stdin is not None
    shown = b""
    print("0;5;" + "a note that is too long for so narrow a terminal", file=process.stdin, flush=True)
    while b"1,005/1,600,000 images" not in shown:
        shown += os.read(ours, 1 << 16)
    process.stdin.close()
    while True:
        try:
            shown += os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.wait(120) == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    lines = [line for line in re.split(r"[\r\n]+", plain) if title in line]
    assert all("/1,600,000 images " in line and "ETA" in line and "/s" in line for line in lines)
    assert any("━" in line or "╸" in line or "…" in line for line in lines)
    assert max(map(len, lines)) <= 80
    assert not re.search(STAMP, plain)
