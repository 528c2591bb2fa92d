"""Uploads that mean no good, and how each ends."""

import asyncio
import contextlib
import io
import json
from collections.abc import Callable

from PIL import Image

from benchmarks.serve.server import answer_of, ask

SLOW = "a body that trickles"
ENDLESS = "200 MB in chunks, of no told length"
SILENT = "a head that never ends"


def _bomb() -> bytes:
    """45 megapixels in a few bytes, just below what is decoded."""
    made = io.BytesIO()
    Image.new("L", (9000, 5000)).save(made, "PNG")
    return made.getvalue()


_BOMB = _bomb()
_SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><image href="http://127.0.0.1:1/"/></svg>'
KINDS: dict[str, Callable[[bytes], bytes] | None] = {
    "nothing": lambda good: b"",
    "noise": lambda good: bytes(range(256)) * 40,
    "cut": lambda good: good[: len(good) // 2],
    "bomb": lambda good: _BOMB,
    "SVG": lambda good: _SVG,
    "HTML behind a GIF's signature": lambda good: b"GIF89a/*<script>alert(1)</script>*/",
    "a JPEG of endless scans": lambda good: b"\xff\xd8" + b"\xff\xda\x00\x02" * 100_000,
    "25 MB": lambda good: bytes(25_000_000),
    "a name that is a path": lambda good: good[:100],
    SLOW: None,
    ENDLESS: None,
    SILENT: None,
}


async def hostile(port: int, kind: str, good: bytes) -> str:
    """The verdict that it got, or the status of the refusal; `cut`: the connection was ended without one."""
    make = KINDS[kind]
    try:
        if make is None:
            status, body = answer_of(await _slowly(port, kind))
        else:
            name = "?name=../../../etc/passwd%00.png" if "name" in kind else ""
            status, body = await ask(port, make(good), f"/v1/detect{name}")
    except (ConnectionError, IndexError):  # nothing came, or not all could be sent
        return kind if kind == SILENT else "cut"
    return str(json.loads(body)["verdict"]) if status == 200 else str(status)


async def _slowly(port: int, kind: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\n")
        if kind == SLOW:
            writer.write(b"Content-Length: 1000\r\n\r\n")
        elif kind == ENDLESS:
            writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
        reading = asyncio.create_task(reader.read())
        piece, pause = (b"10000\r\n" + bytes(1 << 16) + b"\r\n", 0.0) if kind == ENDLESS else (b"1", 1.0)
        for _ in range(200_000_000 >> 16 if kind == ENDLESS else 600):
            if reading.done():
                break
            if kind != SILENT:
                writer.write(piece)
                with contextlib.suppress(ConnectionError):  # `reading` will tell
                    await writer.drain()
            await asyncio.sleep(pause)
        return await reading
    finally:
        writer.close()
