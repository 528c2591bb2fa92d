"""Seconds, measured so that a device's queue cannot hide them; and what the device can do at best."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch


def seconds(run: Callable[[], Any], device: str, at_least: float = 0.0, times: int = 3) -> float:
    """The median time of a call, after one that warms up: of `times` calls, or of more until `at_least` seconds passed.

    A call on a GPU ends when the GPU has.
    """
    run()
    wait(device)
    taken: list[float] = []
    while len(taken) < times or sum(taken) < at_least:
        started = time.perf_counter()
        run()
        wait(device)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def processor_seconds(run: Callable[[], Any], times: int) -> float:
    """The least processor time of a call of so many: other processes on the machine lengthen it, too."""

    def spent() -> float:
        started = time.process_time()
        run()
        return time.process_time() - started

    return min(spent() for _ in range(times))


def wait(device: str) -> None:
    """Until the device has done all that was asked of it."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def matmul_ceiling(dtype: torch.dtype, device: str) -> float:
    """The most FLOP/s that a product of two square matrices reaches on the device; of random numbers, for zeros run
    faster."""
    best = 0.0
    for side in (4096, 8192, 16384) if device.startswith("cuda") else (512, 1024, 2048):
        one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        best = max(best, 2 * side**3 / seconds(partial(torch.matmul, one, other), device, at_least=0.2))
    return best


def device_name(device: str) -> str:
    """The GPU's name, or the processor's with its number of threads."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"


def _processor() -> str:
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            named = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        named = []
    return named[0] if named else platform.processor() or platform.machine()


def peak_memory(device: str) -> int | None:
    """Bytes of the device's memory that were in use at most since the last call; None where torch does not count."""
    if not device.startswith("cuda"):
        return None
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return peak
