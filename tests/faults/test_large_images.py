"""Images of very many pixels: how many are in memory at once does not depend on how many stand in a batch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from sare_core.engine.audit import folders
from sare_core.index.indexing import build_index
from tests.conftest import STANDIN, standin_overrides

SIDE = 2500
HELD = 4 * SIDE * SIDE  # bytes of one image as Pillow holds it
RUN = """
import sys
import sare_core.engine.flow
from stages import caption
from stages.options import run_command
sare_core.engine.flow.PIXELS = int(sys.argv.pop(1))
try:
    run_command(caption.caption)
finally:
    print(open("/proc/self/status").read())
"""


def peak(models: Path, root: Path, shard: int) -> int:
    """Bytes that captioning one shard has in memory at most; two images fit the bound."""
    command = [sys.executable, "-c", RUN, str(2 * SIDE * SIDE), "--dataset", "large", "--preset", STANDIN]
    command += ["--shard", str(shard), "--work", str(root / "work"), "--manifests", str(root / "manifests")]
    changes = [*standin_overrides(models), "caption.captioner=none", "caption.model=null", "caption.batch_size=8"]
    command += [part for change in changes for part in ("--set", change)]
    environment = os.environ | {"SARE_SPOOL": str(root / "spool")}
    said = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, check=True).stdout
    found = re.search(r"VmHWM:\s*(\d+) kB", said)  # not rusage's, which begins with the parent's
    assert found
    return int(found[1]) * 1024


def test_eight_large_images_take_no_more_memory_than_a_few(standin_models: Path, tmp_path: Path) -> None:
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    for number in range(10):
        pixels[0, number] = 255
        path = tmp_path / "images" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path, compress_level=1)
    index = build_index("large", "folder", str(tmp_path / "images"), str(tmp_path / "manifests"), 8, workers=1).index
    assert index.shards["images"].to_list() == [8, 2]
    two, eight = peak(standin_models, tmp_path, 1), peak(standin_models, tmp_path, 0)
    assert eight - two < 2 * HELD, f"{eight / 1e6:.0f} MB for eight, {two / 1e6:.0f} MB for two"
    [folder] = folders(str(tmp_path / "work"))
    assert {record.ok for record in folder.records().values()} == {2, 8}
