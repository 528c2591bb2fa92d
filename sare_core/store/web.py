"""Images by http(s), one by one: from any host, of which none may hold up the others for long.

An object store is one service that all images lie on: where it fails, the run does. Here each image has its own fault.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from sare_core.errors import ImageError, SareError
from sare_core.store.remote import filesystem, is_retryable, is_unreached, status_of, with_retries

T = TypeVar("T")

PATIENCE = 10.0  # seconds of trying one image again
GIVE_UP_AFTER = 3  # images in a row that a host does not answer for: the others are not waited for
_unanswered: Counter[str] = Counter()  # by host, in a row; in this process


def is_web(path: str) -> bool:
    return path.startswith(("http://", "https://"))


def read(url: str) -> bytes:
    """The bytes behind a URL. Raises ImageError: whatever is wrong; at once where its host does not answer at all."""
    fs, place = filesystem(url)
    try:
        return bytes(_asked(url, lambda: fs.cat_file(place)))
    except FileNotFoundError as error:
        raise ImageError(f"{url}: is gone. Restore it, or leave it out.") from error
    except (SareError, OSError, ValueError) as error:  # ValueError: no URL that can be
        raise ImageError(f"{url}: cannot be fetched: {str(error).removeprefix(f'{url}: ')}") from error


def info(url: str) -> dict[str, Any] | None:
    """What fsspec says of a URL (size), or None where there is no answer."""
    fs, place = filesystem(url)
    try:
        return dict(_asked(url, lambda: fs.info(place)))
    except (SareError, OSError, ValueError):
        return None


def _asked(url: str, call: Callable[[], T]) -> T:
    host = urlsplit(url).netloc
    if _unanswered[host] >= GIVE_UP_AFTER:
        raise ImageError(f"{host} has not answered {GIVE_UP_AFTER} times in a row. Run again when it does.")
    try:
        answer = with_retries(url, call, PATIENCE)
    except (SareError, OSError) as error:
        # fsspec's own "not found" hides what there was: the fault is its cause.
        fault = error.__cause__ if isinstance(error.__cause__, Exception) else error
        # A status, 503 too, is an answer: what is wrong with one image says nothing of the others.
        silent = status_of(fault) is None and (is_retryable(fault) or is_unreached(fault))
        _unanswered[host] = _unanswered[host] + 1 if silent else 0
        raise
    _unanswered[host] = 0
    return answer
