"""Does `sare serve` keep up with the stage, and does it bear load and hostile clients? After `make demo`:

    python -m benchmarks.serve --detector demo
    python -m benchmarks.serve --detector demo --only throughput

Writes benchmarks/serve/<part>.md. Server and clients share this machine.
"""

import asyncio
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.bars import Part, Row, measure
from benchmarks.serve.hostile import KINDS, SILENT, hostile
from benchmarks.serve.server import Served, answers, memory, served
from sare_core.detection.examining import Examiner
from sare_core.detection.running import batch_size, examined
from sare_core.detection.sources import sources
from sare_core.pipeline import Detector

IMAGES, TURNS = 300, 5
CLIENTS, SECONDS = 64, 120
AT_ONCE = 1000
SLACK = 1.05  # of memory: what counts as flat


def throughput(detector: str, work: str, images: list[Path], _: Path) -> Iterator[Row]:
    torch.set_num_threads(1)
    examiner = Examiner(Detector.from_pretrained(detector, device="cpu", work=work), None)
    batch, chosen, ratios = batch_size(examiner), list(islice(cycle(images), IMAGES)), []
    bodies = [path.read_bytes() for path in chosen]
    paths = [str(path) for path in chosen]
    with served(detector, work, "--no-checks") as server:
        for _turn in range(1 + TURNS):  # in turns: a noisy moment then hits both
            started = time.monotonic()
            assert sum(len(each) for each in examined(sources(paths), examiner)) == IMAGES
            stage = time.monotonic() - started
            started = time.monotonic()
            found = asyncio.run(answers(server.port, bodies, 3 * batch))
            assert Counter(status for status, _ in found) == {200: IMAGES}
            ratios.append(stage / (time.monotonic() - started))
            print(f"stage {IMAGES / stage:.1f} images/s, server ÷ stage {ratios[-1]:.2f}", file=sys.stderr)
    ratio = statistics.median(ratios[1:])  # the first is for warming up
    on = f"{IMAGES} images of the scale model, batch {batch}, {3 * batch} clients, one thread, median of {TURNS} turns"
    yield Row("images/s of the server ÷ those of the stage (sare detect)", on, f"{ratio:.2f}", "≥ 0.9", ratio >= 0.9)


def load(detector: str, work: str, images: list[Path], _: Path) -> Iterator[Row]:
    with served(detector, work) as server:
        found, samples = asyncio.run(_under_load(server, [path.read_bytes() for path in images]))
    statuses, seconds = Counter(status for status, _ in found), sorted(seconds for _, seconds in found)
    on = f"{CLIENTS} clients for {SECONDS} s, {len(found):,} images, each scored five times"
    errors = len(found) - statuses[200]
    yield Row("requests that got no result", on, f"{errors}", "0", not errors)
    early, late = max(samples[len(samples) // 4 : len(samples) // 2]), max(samples[len(samples) // 2 :])
    figure = f"{late / early:.3f} ({early:.0f} → {late:.0f} MB)"
    yield Row(
        "memory at most in the second minute ÷ in the half before", on, figure, f"≤ {SLACK}", late <= SLACK * early
    )
    median, worst = statistics.median(seconds), seconds[-1]
    yield Row("seconds for an answer, median and longest", on, f"{median:.1f}, {worst:.1f}", "≤ 60", worst <= 60)


async def _under_load(server: Served, bodies: list[bytes]) -> tuple[list[tuple[int, float]], list[float]]:
    found, end = list[tuple[int, float]](), time.monotonic() + SECONDS

    async def client(place: int) -> None:
        while time.monotonic() < end:
            started = time.monotonic()
            ((status, _),) = await answers(server.port, [bodies[(place + len(found)) % len(bodies)]], 1)
            found.append((status, time.monotonic() - started))

    async with memory(server.process) as samples:
        await asyncio.gather(*map(client, range(CLIENTS)))
    return found, samples


def attack(detector: str, work: str, images: list[Path], _: Path) -> Iterator[Row]:
    good = images[0].read_bytes()
    with served(detector, work) as server:
        before, told, samples = asyncio.run(_attacked(server, good))
        _, told_again, samples_again = asyncio.run(_attacked(server, good))
        ((status, after),) = asyncio.run(answers(server.port, [good], 1))
    on, told = f"{AT_ONCE:,} hostile uploads at once, of {len(KINDS)} kinds, twice", told + told_again
    clear = sum(told[each] for each in ("no_verdict", "400", "408", "413", "503", "504", SILENT))
    ends = ", ".join(f"{count} {what}" for what, count in sorted(told.items()))
    yield Row("ended clearly", on, f"{clear:,} ({ends})", f"{2 * AT_ONCE:,}", clear == 2 * AT_ONCE)
    same = status == 200 and all(before[key] == after[key] for key in ("verdict", "logit", "sha256"))
    yield Row("the same answer to a good image before and after", on, "yes" if same else "no", "yes", same)
    first, second = max(samples), max(samples_again)
    figure = f"{second / first:.3f} ({samples[0]:.0f} → {first:.0f} → {second:.0f} MB)"
    yield Row("memory at most in the second time ÷ in the first", on, figure, f"≤ {SLACK}", second <= SLACK * first)


async def _attacked(server: Served, good: bytes) -> tuple[dict[str, object], Counter[str], list[float]]:
    ((_, before),) = await answers(server.port, [good], 1)
    async with memory(server.process) as samples:
        kinds = islice(cycle(KINDS), AT_ONCE)
        told = Counter(await asyncio.gather(*(hostile(server.port, kind, good) for kind in kinds)))
    return before, told, samples


PARTS = {"throughput": throughput, "load": load, "hostile": attack}


def main(
    detector: Annotated[str, typer.Option(help="As for sare serve.")] = "demo",
    images: Annotated[Path, typer.Option(help="PNGs that it can score.")] = Path("data/mini"),
    work: Annotated[str, typer.Option(help="Work folder.")] = "work",
    only: Annotated[list[str] | None, typer.Option(help=f"Parts: {', '.join(PARTS)}. Default: all.")] = None,
) -> None:
    """Measure, print and write down. Exits with 1 when a bar is missed."""
    files = sorted(images.rglob("*.png"))
    parts: dict[str, Part] = {name: partial(part, detector, work, files) for name, part in PARTS.items()}
    sys.exit(not measure("benchmarks.serve", parts, only, None))


if __name__ == "__main__":
    typer.run(main)
