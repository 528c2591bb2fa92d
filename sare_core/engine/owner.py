"""Which process has written something, and whether it still runs."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, PositiveInt

# Two readings of a process's start differ when the host's clock was set in between; a pid does not come round so soon.
SAME_START = 60.0


class Owner(BaseModel):
    """A process, as others can find it again. started: seconds since 1970, by its host's clock."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    pid: PositiveInt
    started: float
    machine: str = ""  # boot and PID namespace: containers may share a host's name, and their pids mean nothing here

    def running(self) -> bool | None:
        """Whether it runs; None for a process of another host or PID namespace, of which nothing can be told here."""
        if (self.host, self.machine) != (os.uname().nodename, _machine()):
            return None
        try:
            process = psutil.Process(self.pid)
            # A killed process stays as a zombie until its parent asks for it, in a container perhaps for ever.
            zombie = process.status() == psutil.STATUS_ZOMBIE
            return not zombie and abs(process.create_time() - self.started) < SAME_START
        except psutil.NoSuchProcess:
            return False


def this_process() -> Owner:
    pid = os.getpid()
    return Owner(host=os.uname().nodename, pid=pid, started=psutil.Process(pid).create_time(), machine=_machine())


@lru_cache(maxsize=1)
def _machine() -> str:
    """Eight hex digits; empty where there is no /proc, and the host's name has to do."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return hashlib.sha256(f"{boot}{Path('/proc/self/ns/pid').readlink()}".encode()).hexdigest()[:8]
    except OSError:
        return ""
