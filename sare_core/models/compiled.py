"""Models that torch compiles: reconstruct.speed and train.compile."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.runtime.cache_dir_utils import cache_dir

from sare_core.errors import ConfigError

BACKEND = "inductor"


@contextmanager
def compiler_errors() -> Iterator[None]:
    """Raises ConfigError where the compiler fails, as it does on files that a killed run has left half written."""
    try:
        yield
    except BackendCompilerFailed as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"torch cannot compile the model ({said}). A run that was killed while it compiled leaves damaged files: "
            f"delete {cache_dir()}, then run the same command again."
        ) from error
