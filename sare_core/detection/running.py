"""Many files through an examiner, a batch at a time."""

from collections.abc import Callable, Iterable, Iterator

from sare_core.detection.examining import Examined, Examiner
from sare_core.detection.loading import Loaded, batches, loaded
from sare_core.detection.outputs import Key
from sare_core.detection.results import Result
from sare_core.detection.sources import Source
from sare_core.detection.text import shown
from sare_core.engine.flow import PIXELS
from sare_core.engine.signals import check_stop


def examined(
    sources: Iterable[Source], examiner: Examiner, before: Callable[[Key], Result | None] = lambda key: None
) -> Iterator[list[Examined]]:
    """Results in the order of the sources. before: gives that of an earlier run, which is not made again.

    Memory: one batch, and the files that are read ahead. Raises Stopped between two batches once a signal has arrived.
    """
    for batch in batched(loaded(sources), examiner):
        check_stop()
        known = [_known(file, examiner, before) for file in batch]
        fresh = iter(examiner.examine([file for file, result in zip(batch, known, strict=True) if result is None]))
        yield [next(fresh) if result is None else Examined(result, fresh=False) for result in known]


def batch_size(examiner: Examiner) -> int:
    """Files that fill the models."""
    return max(1, examiner.detector.settings.reconstruct.batch_size // examiner.scored)


def batched(files: Iterable[Loaded], examiner: Examiner) -> Iterator[list[Loaded]]:
    """As the examiner takes them, of bounded size."""
    return batches(files, batch_size(examiner), PIXELS // examiner.scored)


def _known(file: Loaded, examiner: Examiner, before: Callable[[Key], Result | None]) -> Result | None:
    return before((shown(file.path), file.sha256, examiner.digest)) if file.sha256 else None
