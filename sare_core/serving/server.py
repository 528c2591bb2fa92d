"""uvicorn, made to bear clients that never come to the point, and to finish its work before it ends."""

import asyncio
import resource
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from sare_core.errors import ConfigError
from sare_core.serving.queue import Queue

PATIENCE = 30.0  # seconds that a connection may be open with no request under way, or with none of its answer read
LAST_ANSWERS = 10  # seconds in which clients read their answers at the end
CONNECTIONS = 2000  # more get 503


class _Connection(H11Protocol):
    """One that is cut when it neither asks nor reads its answer; uvicorn waits for a request's head for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._seen: Any = None
        self._look_again()

    def _look_again(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if self.transport.is_closing() and not unsent:
            return
        waits = self.cycle is None or self.cycle.response_complete or self.flow.write_paused
        now = (self.cycle, unsent) if waits else None  # for the client: to ask, or to read
        if now is not None and now == self._seen:  # as when it was looked at before
            self.transport.abort()
        else:
            self._seen = now
            self.loop.call_later(PATIENCE, self._look_again)


def bound(host: str, port: int) -> socket.socket:
    """A socket for `Server.run`. Raises ConfigError: it cannot be had."""
    host = host.strip("[]")
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except (OSError, UnicodeError) as error:  # the latter: no name of a host
        found.close()
        raise ConfigError(
            f"{host}, port {port}: {getattr(error, 'strerror', None) or error}. Name others: --host, --port."
        ) from error
    return found


def _allow_files(count: int) -> None:
    """Each connection is one, and 1,024 are usual. As many as this user may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        allowed = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


class Server(uvicorn.Server):
    """It goes on answering while the queue is worked off after SIGTERM or SIGINT: with 503 to what is new.

    A second signal ends it at once. ready: is called when it listens.
    """

    def __init__(self, app: ASGIApp, queue: Queue, ready: Callable[[], object] = lambda: None) -> None:
        config = uvicorn.Config(
            app,
            http=_Connection,
            ws="none",
            access_log=False,  # names of files are nobody's business
            log_level="error",  # a warning for each odd client would fill disks
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=LAST_ANSWERS,
        )
        super().__init__(config)
        self.queue, self.ready = queue, ready
        _allow_files(2 * CONNECTIONS)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.queue.stopping
        self.queue.stopping = True

    async def on_tick(self, counter: int) -> bool:
        if self.queue.stopping and (self.queue.idle or self.force_exit):
            self.should_exit = True
        return await super().on_tick(counter)
