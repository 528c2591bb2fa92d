"""The four kinds of error, and what each of them does to a run.

- `ImageError`: one bad image. It becomes a failure row with its reason, the work goes on.
- `StageError`: one shard that cannot be done. It is recorded as failed with the reason, the others go on.
- `TransientError`: a passing I/O fault. It is retried with back-off before it counts, then fails its shard.
- `ConfigError`: a wrong setting, a missing model or file. The run stops at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class SareError(Exception):
    """What the user can mend; its text names the file or setting, and the cure. Never a bug of ours."""


class ConfigError(SareError):
    """A wrong setting, model folder or dataset: stops the run at once, before anything is written."""


class ImageError(SareError):
    """One image cannot be used; the text says why in words fit for a failure row."""


class NotReached(ImageError):
    """An image that an earlier stage could not do, so that this one has nothing to work on."""


class TransientError(SareError):
    """A passing fault of a disk or network (not a missing file): worth another try."""


class StageError(SareError):
    """A shard could not be done (nearly all of its images fail, or its output reads back wrong)."""


class Stopped(BaseException):
    """SIGTERM or SIGINT arrived. Derives from BaseException so that no `except Exception` can swallow it.

    Attributes: signum, the signal's number; a process that ends by it exits with 128 + signum.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by signal {signum}")
        self.signum = signum


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Around the import of a package that only one of sare's extras installs. Raises ConfigError: it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed. Run: pip install 'sare[{extra}]'") from error
