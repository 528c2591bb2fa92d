"""The square that a detector sees of a picture at its own size."""

from torch import Tensor
from torchvision.transforms.v2 import functional as F

Place = (
    tuple[float, float] | None
)  # in [0, 1) of what there is to spare from the top and from the left; None: the centre


def window(view: Tensor, size: int, place: Place = None) -> Tensor:
    """(…, size, size) of (…, H, W); what is smaller is centred on black."""
    rows, columns = spans(view, size, place)
    return padded(view[..., rows, columns], size)


def spans(view: Tensor, size: int, place: Place) -> list[slice]:
    """Rows and columns of (…, H, W) that the window sees."""
    spare = [max(side - size, 0) for side in view.shape[-2:]]
    starts = [n // 2 for n in spare] if place is None else [int(p * (n + 1)) for p, n in zip(place, spare, strict=True)]
    return [slice(start, start + min(side, size)) for start, side in zip(starts, view.shape[-2:], strict=True)]


def padded(view: Tensor, size: int) -> Tensor:
    """(…, size, size) of what is no larger, in the middle of black."""
    narrow, short = size - view.shape[-1], size - view.shape[-2]
    return F.pad(view, [narrow // 2, short // 2, narrow - narrow // 2, short - short // 2])
