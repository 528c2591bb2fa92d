"""Batches as large as the device's memory takes."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from sare_core.engine.terminal import console
from sare_core.errors import StageError

T = TypeVar("T")


class Fitting:
    """Runs a part of the model over a batch: as a whole, or in halves, quarters … where memory ends.

    The size that fits is kept for the batches to come, in `largest`; None: nothing was too large so far. A part that
    runs out of memory is run again, with the generators as they were, so that nothing but rounding tells of it.

    most: images that it took at once, at most, since somebody set it to 0.
    """

    def __init__(self, part: str) -> None:
        self.part, self.largest, self.most = part, None, 0  # type: str, int | None, int

    def __call__(
        self, run: Callable[..., T], generators: list[torch.Generator], *columns: Sequence[Any] | torch.Tensor
    ) -> list[T]:
        """What `run` gives for each part of the columns, which are of one length; generators are its last argument.

        Raises StageError: a single image does not fit.
        """
        results, start, count = list[T](), 0, len(generators)
        while start < count:
            size = min(self.largest or count, count - start)
            own, chunk = generators[start : start + size], [column[start : start + size] for column in columns]
            states = [generator.get_state() for generator in own]
            try:
                results.append(run(*chunk, own))
                start += size
                self.most = max(self.most, size)
                continue
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise StageError(
                        f"{self.part}: a single image of {_shape(chunk)} does not fit into the device's memory. Set a "
                        "smaller reconstruct.longer_side, or reconstruct.dtype=float16."
                    ) from error
            # Not in the `except`: while an error is handled, it keeps what the failed run had on the device.
            self.largest = size // 2
            for generator, state in zip(own, states, strict=True):
                generator.set_state(state)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            console.print(f"{self.part}: {size} images are too many for the device's memory: {self.largest} now.")
        return results


def _shape(columns: list[Any]) -> str:
    tensor = next(column for column in columns if isinstance(column, torch.Tensor))
    return "×".join(str(side) for side in reversed(tensor.shape[2:]))
