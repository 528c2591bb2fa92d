"""Images examined in processes of their own, so that no file can stop the run.

A file that takes too long ends its process, which sets itself an alarm: that works inside a decoder or a blocked read
too. The file becomes an error row, and another process goes on with the next.
"""

import contextlib
import hashlib
import multiprocessing
import signal
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any

from sare_core.errors import ImageError, SareError, StageError, TransientError
from sare_core.images.decoding import decode, image_id
from sare_core.images.reading import read_bytes
from sare_core.images.sources import locate

File = tuple[str, int | None, int | None]  # path, bytes, mtime_ns
Row = tuple[Any, ...]  # a file, and FACTS of it
FACTS = ("sha256", "image_id", "width", "height", "format", "extension", "mode", "quality", "error")

READ_SECONDS = 300.0  # for one file; a store that does not answer gives up before that
DECODE_SECONDS = 60.0  # of processor time, for one file; nearly all take milliseconds
CHUNK = 20  # files that a process is given at a time
TICK = 0.2  # seconds after which the caller gets its turn when no file is done


def examined(base: str, files: Iterable[File], workers: int) -> Generator[list[Row]]:
    """The rows of files as they get ready, in any order; an empty list now and then, while none is.

    Raises StageError: a process died for a reason other than its alarms. ConfigError, TransientError: as read_bytes.
    """
    left = iter(files)
    chunks = iter(lambda: list(islice(left, CHUNK)), [])
    team = list[_Worker]()
    try:
        for chunk in islice(chunks, workers):
            team.append(_Worker(base))
            team[-1].give(chunk)
        while True:
            for worker in team:
                if not worker.files and (more := next(chunks, None)):
                    worker.give(more)
            busy = {worker.connection: worker for worker in team if worker.files}
            if not busy:
                return
            rows = []
            for connection in wait(list(busy), TICK):
                worker = busy[connection]  # type: ignore[index]
                try:
                    rows.append(worker.take())
                except (EOFError, OSError):
                    reason = worker.cause_of_death()
                    rows.append(worker.files.popleft() + _failed(reason))
                    team[team.index(worker)] = successor = _Worker(base)
                    successor.give(list(worker.files))
                    worker.end()
            yield rows
    finally:
        for worker in team:
            worker.end()


class _Worker:
    """A process, and the files that it has been given and not yet handed back; it does them in order."""

    def __init__(self, base: str) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, base, READ_SECONDS, DECODE_SECONDS), daemon=True)
        self.process.start()
        theirs.close()
        self.files: deque[File] = deque()

    def give(self, files: list[File]) -> None:
        self.files.extend(files)
        with contextlib.suppress(BrokenPipeError):  # dead already: `take` finds out
            self.connection.send(files)

    def take(self) -> Row:
        """The row of the next file. Raises EOFError or OSError: the process is dead."""
        answer = self.connection.recv()
        if isinstance(answer, MemoryError):
            raise self._died("no memory")
        if isinstance(answer, SareError):
            raise answer
        self.files.popleft()
        return tuple(answer)

    def cause_of_death(self) -> str:
        """Why the file in hand ended the process. Raises StageError: it need not have been the file."""
        self.process.join()
        if self.process.exitcode == -signal.SIGALRM:
            return f"reading it took more than {READ_SECONDS:g} seconds. Check the disk, or leave it out."
        if self.process.exitcode == -signal.SIGPROF:
            return f"decoding it took more than {DECODE_SECONDS:g} seconds of processor time. Leave it out."
        raise self._died(f"exit code {self.process.exitcode}")

    def _died(self, how: str) -> StageError:
        return StageError(
            f"{self.files[0][0]}: a process that read images died at this one ({how}), most likely out of memory. "
            "What was read is kept: run the same command again, with fewer --workers; or leave the file out."
        )

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _work(connection: Connection, base: str, read_seconds: float, decode_seconds: float) -> None:
    """In the process: rows of what it is given, until the other end is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to a whole group; the parent ends its workers
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        while True:
            for file in connection.recv():
                try:
                    connection.send(file + _facts(locate(base, file[0]), read_seconds, decode_seconds))
                except (SareError, MemoryError) as error:
                    connection.send(error)


def _facts(path: str, read_seconds: float, decode_seconds: float) -> tuple[Any, ...]:
    """FACTS of one file."""
    try:
        with _alarm(signal.ITIMER_REAL, read_seconds):
            data = read_bytes(path)
        with _alarm(signal.ITIMER_PROF, decode_seconds):
            image, info = decode(data, path)
            identity = image_id(image)
    except TransientError as error:
        if "://" in path:  # a store that does not answer for minutes will not for the next image either
            raise
        return _failed(str(error).removeprefix(f"{path}: "))
    except ImageError as error:
        return _failed(str(error).removeprefix(f"{path}: "))
    looks = (info.width, info.height, info.format, info.extension, info.mode, info.quality)
    return (hashlib.sha256(data).hexdigest(), identity, *looks, None)


def _failed(reason: str) -> tuple[Any, ...]:
    return (*[None] * (len(FACTS) - 1), reason)


@contextmanager
def _alarm(timer: int, seconds: float) -> Iterator[None]:
    """The process ends, whatever it is in the midst of, when the block takes longer."""
    signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)
