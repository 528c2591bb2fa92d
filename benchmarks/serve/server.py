"""`sare serve` as a process of its own, its clients, and the memory that it takes."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import psutil

OFTEN = 0.1  # seconds between looks at the memory


class Served(NamedTuple):
    process: psutil.Process
    port: int


@contextmanager
def served(detector: str, work: str, *options: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "stages.app", "serve", "--detector", detector, "--work", work, "--port", "0"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if line.startswith("http"))
            (port,) = re.findall(r":(\d+) ", line)
            yield Served(psutil.Process(process.pid), int(port))
        finally:
            process.terminate()
            process.wait(60)


async def answers(port: int, bodies: Sequence[bytes], clients: int) -> list[tuple[int, Any]]:
    """Status and result of each image, in any order; so many are asked for at a time."""
    found, left = list[tuple[int, Any]](), iter(bodies)

    async def client() -> None:
        for body in left:
            status, told = await ask(port, body)
            found.append((status, json.loads(told)))

    await asyncio.gather(*(client() for _ in range(min(clients, len(bodies)))))
    return found


async def ask(port: int, body: bytes, path: str = "/v1/detect", headers: str = "") -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    )
    try:
        writer.write(head.encode() + body)
        await writer.drain()
        return answer_of(await reader.read())
    finally:
        writer.close()


def answer_of(data: bytes) -> tuple[int, bytes]:
    """Status and body."""
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


@asynccontextmanager
async def memory(process: psutil.Process) -> AsyncIterator[list[float]]:
    """Megabytes that it takes while the block lasts."""
    samples = [process.memory_info().rss / 1e6]

    async def look() -> None:
        while True:
            await asyncio.sleep(OFTEN)
            samples.append(process.memory_info().rss / 1e6)

    looking = asyncio.create_task(look())
    try:
        yield samples
    finally:
        looking.cancel()
