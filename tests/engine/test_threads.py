"""Threads: those that wait do not spin for long, and those beside the model give way to it. What libraries are told
before they are imported.
"""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sare_core.engine.flow import BEHIND, give_way

TOLD = "import os, sare_core; print(os.environ.get('GOMP_SPINCOUNT'))"
ALLOCATOR = "_RJEM_MALLOC_CONF"


def spin_count(**environment: str) -> str:
    env = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    return subprocess.check_output([sys.executable, "-c", TOLD], env=env | environment, text=True).strip()


def test_a_users_own_choice_stays() -> None:
    assert spin_count() == "2000"
    assert spin_count(GOMP_SPINCOUNT="7") == "7"
    assert spin_count(OMP_WAIT_POLICY="ACTIVE") == "None"


@pytest.mark.parametrize(("own", "told"), [({}, "dirty_decay_ms:0,muzzy_decay_ms:0"), ({ALLOCATOR: "x:1"}, "x:1")])
def test_polars_gives_freed_memory_back_unless_its_user_says_otherwise(own: dict[str, str], told: str) -> None:
    env = {name: value for name, value in os.environ.items() if name != ALLOCATOR} | own
    code = f"import os, sare_core; print(os.environ[{ALLOCATOR!r}])"
    assert subprocess.check_output([sys.executable, "-c", code], env=env, text=True).strip() == told


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a thread a niceness of its own")
def test_only_the_thread_itself_gives_way() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness()
    with ThreadPoolExecutor(1, initializer=give_way) as pool:
        assert pool.submit(niceness).result() == max(BEHIND, before)
    assert niceness() == before
