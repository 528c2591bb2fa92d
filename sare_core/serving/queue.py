"""Images of many requests, examined several at a time by one thread.

While a batch is in the models, those that arrive wait; then all of them, as many as fill the models, are the next one.
So nobody waits for a batch to fill, and under load every batch is full.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from sare_core.detection.examining import Examined, Examiner
from sare_core.detection.loading import Loaded
from sare_core.detection.page import reduced
from sare_core.detection.running import batch_size, batched
from sare_core.pipeline import Step
from sare_core.serving.limits import Limits, Refused
from sare_core.serving.metrics import Metrics

Stage = Literal["queued", "decoding", Step]


@dataclass(eq=False)
class Job:
    """An image on its way. stages: those that it has entered; None at its end."""

    file: Loaded
    answer: asyncio.Future[Examined]
    arrived: float = field(default_factory=time.monotonic)
    stages: asyncio.Queue[Stage | None] = field(default_factory=asyncio.Queue)

    async def entered(self) -> AsyncIterator[Stage]:
        """Each stage as it begins."""
        while (stage := await self.stages.get()) is not None:
            yield stage


class Queue:
    """For one event loop. stopping: no more images are taken. begun: when the batch under way went into the models."""

    def __init__(self, examiner: Examiner, limits: Limits, metrics: Metrics) -> None:
        self.examiner, self.limits, self.metrics = examiner, limits, metrics
        self.stopping, self.begun = False, 0.0
        self._waiting, self._parts = deque[Job](), deque[list[Job]]()
        self._thread = ThreadPoolExecutor(1, "examiner")

    @property
    def waiting(self) -> int:
        """Images that are not in the models yet."""
        return len(self._waiting) + sum(map(len, self._parts))

    @property
    def idle(self) -> bool:
        return not self.begun and not self.waiting

    def require_place(self) -> None:
        """Raises Refused: there is none, or the server is about to stop."""
        if self.stopping:
            raise Refused(503, "The server is about to stop.", later=True)
        if self.waiting >= self.limits.waiting:
            raise Refused(503, f"{self.waiting:,} images wait already. Try again soon.", later=True)

    def put(self, file: Loaded) -> Job:
        """An image to be examined; its answer may be cancelled. Raises Refused."""
        self.require_place()
        job = Job(file, asyncio.get_running_loop().create_future())
        job.stages.put_nowait("queued")
        job.answer.add_done_callback(lambda _: self._forget(job))
        self._waiting.append(job)
        self._next()
        return job

    def _forget(self, job: Job) -> None:
        """Of one that nobody waits for any more, the bytes go at once, and it is not examined."""
        for jobs in (self._waiting, *self._parts):
            if job in jobs:
                jobs.remove(job)

    def _next(self) -> None:
        """Start a batch, where none is under way and something waits."""
        if self.begun:
            return
        if not self._parts and self._waiting:
            size = min(batch_size(self.examiner), len(self._waiting))
            taken = [self._waiting.popleft() for _ in range(size)]
            jobs = iter(taken)
            self._parts.extend(
                [next(jobs) for _ in part] for part in batched([job.file for job in taken], self.examiner)
            )
        while self._parts and not self.begun:
            if part := self._parts.popleft():  # empty where all its clients went away
                self._start(part)

    def _start(self, jobs: list[Job]) -> None:
        loop, self.begun = asyncio.get_running_loop(), time.monotonic()
        self.metrics.batches.observe(len(jobs))
        for job in jobs:
            self.metrics.stages.labels("queued").observe(self.begun - job.arrived)

        def tell(stage: Stage) -> None:
            for job in jobs:
                loop.call_soon_threadsafe(job.stages.put_nowait, stage)

        def work() -> list[Examined]:
            return self._timed([job.file for job in jobs], tell)

        loop.run_in_executor(self._thread, work).add_done_callback(lambda done: self._finish(jobs, done))

    def _finish(self, jobs: list[Job], done: asyncio.Future[list[Examined]]) -> None:
        self.begun = 0.0
        if (error := done.exception()) and len(jobs) > 1:  # which of them it was, each will show alone
            self._parts.extendleft([job] for job in reversed(jobs) if not job.answer.done())
            return self._next()
        for place, job in enumerate(jobs):
            if job.answer.done():
                continue
            if error:
                job.answer.set_exception(error)
            else:
                job.answer.set_result(done.result()[place])
            job.stages.put_nowait(None)
        return self._next()

    def _timed(self, files: Sequence[Loaded], tell: Callable[[Stage], object]) -> list[Examined]:
        """Runs in the thread. A stage may come several times, for a part of the batch each."""
        begun = list[tuple[Stage, float]]()

        def begin(stage: Stage) -> None:
            begun.append((stage, time.monotonic()))
            tell(stage)

        begin("decoding")
        found = self.examiner.examine(files, begin)
        ends, spent = [*(moment for _, moment in begun[1:]), time.monotonic()], defaultdict[Stage, float](float)
        for (stage, start), end in zip(begun, ends, strict=True):
            spent[stage] += end - start
        for stage, seconds in spent.items():
            self.metrics.stages.labels(stage).observe(seconds)
        # A large image is not held until its answer is sent.
        return [each._replace(image=each.image and reduced(each.image)) for each in found]
