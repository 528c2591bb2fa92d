"""Files read ahead of the model and grouped into batches, with memory that does not grow with their number."""

import hashlib
import io
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from PIL import Image

from sare_core.detection.sources import Source
from sare_core.engine.flow import give_way
from sare_core.errors import SareError
from sare_core.images.decoding import DECODING_ERRORS, EXTENSIONS
from sare_core.images.reading import read_bytes

LARGEST = 256 << 20  # bytes of a file
BYTES = 256 << 20  # of the files of a batch
THREADS = 4
AHEAD = 8  # files that are read while the model works


class Loaded(NamedTuple):
    """A file as it was read. pixels: as its header says, 0 where it says nothing. problem: why there are no bytes."""

    path: str
    data: bytes
    sha256: str | None
    pixels: int
    problem: str = ""


def load(source: Source) -> Loaded:
    """Never raises for a file's own faults."""
    if source.problem:
        return Loaded(source.path, b"", None, 0, source.problem)
    try:
        data = read_bytes(source.path, LARGEST)
    except SareError as error:
        return Loaded(source.path, b"", None, 0, str(error))
    return of_bytes(source.path, data)


def of_bytes(name: str, data: bytes) -> Loaded:
    """A file that is in memory already, such as an upload."""
    return Loaded(name, data, hashlib.sha256(data).hexdigest(), _pixels(data))


def loaded(sources: Iterable[Source]) -> Iterator[Loaded]:
    """Each source's file, in order."""
    with ThreadPoolExecutor(THREADS, initializer=give_way) as readers:
        waiting: deque[Future[Loaded]] = deque()
        try:
            for source in sources:
                waiting.append(readers.submit(load, source))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            readers.shutdown(cancel_futures=True)


def batches(files: Iterable[Loaded], size: int, most: int) -> Iterator[list[Loaded]]:
    """At most `size` files of `most` pixels and BYTES bytes at a time; a file that is larger is alone."""
    batch, pixels, held = list[Loaded](), 0, 0
    for file in files:
        pixels, held = pixels + file.pixels, held + len(file.data)
        if batch and (len(batch) == size or pixels > most or held > BYTES):
            yield batch
            batch, pixels, held = [], file.pixels, len(file.data)
        batch.append(file)
    if batch:
        yield batch


def _pixels(data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data), formats=tuple(EXTENSIONS)) as file:
            return file.width * file.height
    except DECODING_ERRORS:  # `decode` will say what is wrong
        return 0
