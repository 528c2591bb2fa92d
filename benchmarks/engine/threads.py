"""Two threads a process on a machine that is not idle: how much of a core's worth is left of them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bars import Row

BUSY = "while True: pass"
RATE = """
import time
import sare_core
from sare_core.bench.reconstruct import CAPTION, _image, parts_of
from sare_core.config import load_settings
from sare_core.reconstruction.img2img import Img2Img
from sare_core.reconstruction.mapper import Mapper
settings = load_settings("mini").reconstruct
mapper = Mapper(settings, 0, Img2Img(settings, parts_of(settings, "cpu"), "cpu"))
images = [_image((32, 32), number) for number in range(50)]
run = lambda: mapper.maps(images, [CAPTION] * 50, list(map(str, range(50))))
run()
started, count = time.perf_counter(), 0
while time.perf_counter() - started < 6:
    run()
    count += 50
print(count / (time.perf_counter() - started))
"""


def rows(folder: Path) -> Iterator[Row]:
    """The mini preset's models with random weights; `sare mini` must have put their configurations there."""
    alone, spinning = _rate(2), _rate(2, OMP_WAIT_POLICY="ACTIVE")
    on = "mini preset, batch 50, two threads on two cores"
    yield Row(
        "as it is ÷ with threads that spin, alone", on, f"{alone / spinning:.2f}", "≥ 0.97", alone >= 0.97 * spinning
    )
    busy = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        beside = _rate(2)
    finally:
        busy.kill()
        busy.wait()
    ratio = beside / alone
    yield Row("beside one busy process ÷ alone", on, f"{ratio:.2f}", "≥ 0.4", ratio >= 0.4)


def _rate(threads: int, **environment: str) -> float:
    env = os.environ | {"OMP_NUM_THREADS": str(threads)} | environment
    return float(
        subprocess.run([sys.executable, "-c", RATE], env=env, check=True, capture_output=True, text=True).stdout
    )
