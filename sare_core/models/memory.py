"""Batches as large as the device's memory takes."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, TypeVar

import torch

from sare_core.engine.terminal import console
from sare_core.errors import StageError

T = TypeVar("T")


class Fitting:
    """Runs a part of a model over a batch: as a whole, or in halves, quarters … where memory ends.

    The size that fits is kept for the batches to come, in `largest`; None: nothing was too large so far. A part that
    runs out of memory is run again, with the generators as they were, so that nothing but rounding tells of it.

    most: images that it took at once, at most, since somebody set it to 0. cure: what to set where one is too large.
    """

    def __init__(self, part: str, cure: str) -> None:
        self.part, self.cure, self.largest, self.most = part, cure, None, 0  # type: str, str, int | None, int

    def __call__(self, run: Callable[..., T], *columns: Sequence[Any] | torch.Tensor) -> list[T]:
        """What `run` gives for each part of the columns, which are of one length: an item an image.

        Raises StageError: a single image does not fit.
        """
        results, start, count = list[T](), 0, len(columns[0])
        while start < count:
            size = min(self.largest or count, count - start)
            chunk = [column[start : start + size] for column in columns]
            lists = [column for column in chunk if not isinstance(column, torch.Tensor)]
            generators = [each for each in chain.from_iterable(lists) if isinstance(each, torch.Generator)]
            states = [generator.get_state() for generator in generators]
            try:
                results.append(run(*chunk))
                start += size
                self.most = max(self.most, size)
                continue
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise StageError(
                        f"{self.part}: a single image of {_shape(chunk)} does not fit into the device's memory. "
                        f"{self.cure}"
                    ) from error
            # Not in the `except`: while an error is handled, it keeps what the failed run had on the device.
            self.largest = size // 2
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            console.print(f"{self.part}: {size} images are too many for the device's memory: {self.largest} now.")
        return results


def _shape(columns: list[Any]) -> str:
    """Width × height, of the first of the columns that are images or latents."""
    tensor = next(column for column in columns if isinstance(column, torch.Tensor) and column.dim() > 3)
    return "×".join(str(side) for side in reversed(tensor.shape[-2:]))
