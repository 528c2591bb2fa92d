"""What one client can take from a server: bytes, pixels, seconds and places in the queue."""

from typing import NamedTuple

from sare_core.detection.loading import Loaded

SCANS = 100  # of a progressive JPEG; encoders write about ten, and each is a walk through all its pixels
_SCAN = b"\xff\xda"  # compressed data never hold it


class Limits(NamedTuple):
    """body: bytes of an upload. held: of all uploads that wait together. pixels: of an image. waiting: images.

    upload: seconds for a request to arrive in; answer: seconds in which it is examined.
    """

    body: int = 20_000_000
    held: int = 256_000_000
    pixels: int = 50_000_000
    waiting: int = 256
    upload: float = 30.0
    answer: float = 60.0


DEFAULT = Limits()


class Refused(Exception):
    """A request that is not examined: the HTTP status, and why in words. later: another try may well succeed."""

    def __init__(self, status: int, why: str, later: bool = False) -> None:
        super().__init__(why)
        self.status, self.why, self.later = status, why, later


def checked(file: Loaded, limits: Limits) -> Loaded:
    """The file, or one that will not be decoded because of what its header says."""
    if file.pixels > limits.pixels:
        problem = f"has {file.pixels:,} pixels, and this server examines up to {limits.pixels:,}. Scale it down."
    elif file.data.startswith(b"\xff\xd8") and file.data.count(_SCAN) > SCANS:
        problem = f"is a JPEG of more than {SCANS} scans, which would take very long. Save it anew."
    else:
        return file
    return file._replace(problem=f"{file.path}: {problem}")
