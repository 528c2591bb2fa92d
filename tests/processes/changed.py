"""A stage's command as `python -m` starts it, changed for a test.

    python -m tests.processes.changed RANK POINT HIT SIGNAL TARGET stages.reconstruct --dataset …

One rank sends a signal when it comes to a named point for the HIT-th time (0: never), to TARGET: "self", or "launcher",
which is its parent. The other ranks dawdle from their own HIT-th time on, or a busy machine could leave that rank
without work. A detector is trained in double precision: the order of sums then shows in the tenth digit at most,
and everything else that the number of processes might change shows well above.
"""

import os
import runpy
import sys
import time
from typing import Any

import sare_core.detectors
from sare_core.engine import faults

DAWDLE = 0.5  # seconds


def change(rank: int, wanted: str, hit: int, signum: int, target: str) -> None:
    """Change this process as the module says."""
    left = hit

    def hook(point: str) -> None:
        nonlocal left
        left -= point == wanted
        if left > 0 or point != wanted:
            return
        if int(os.environ.get("RANK", "0")) != rank:
            time.sleep(DAWDLE)
        elif left == 0:
            os.kill(os.getpid() if target == "self" else os.getppid(), signum)

    if hit:
        faults.hook = hook
    build = sare_core.detectors.build_detector

    def build_double(*arguments: Any, **named: Any) -> Any:
        detector = build(*arguments, **named).double()
        detector.register_forward_pre_hook(lambda _, given: ({key: part.double() for key, part in given[0].items()},))
        return detector

    sare_core.detectors.build_detector = build_double


if __name__ == "__main__":
    of_rank, named, count, number, whom, module, *rest = sys.argv[1:]
    change(int(of_rank), named, int(count), int(number), whom)
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
