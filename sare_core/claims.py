"""Claims: a small file that says who works on a shard, kept fresh by a heartbeat.

A claim only saves work and feeds `status`; what is right never depends on one, since the record names one output.
"""

import json
import os
import threading
import time
from dataclasses import dataclass

import psutil

from sare_core.storage import Store

HEARTBEAT = 20.0  # seconds between beats
LOST = 180.0  # a claim of another host without a beat for so long may be taken over


@dataclass(frozen=True)
class Claim:
    """Who holds a shard. `beat` is the holder's clock at its last heartbeat, in seconds since 1970."""

    host: str
    pid: int
    started: float  # of the process, so that a reused pid is not mistaken for it
    beat: float

    def alive(self) -> bool:
        """False when the holder is surely gone: its process is dead (same host), or its heart has stopped."""
        if self.host == os.uname().nodename:
            try:
                process = psutil.Process(self.pid)
                # A killed process stays as a zombie until its parent asks for it, in a container perhaps for ever.
                zombie = process.status() == psutil.STATUS_ZOMBIE
                return not zombie and abs(process.create_time() - self.started) < 1.0
            except psutil.NoSuchProcess:
                return False
        return time.time() - self.beat < LOST

    def holder(self) -> str:
        return f"{self.host}, process {self.pid}"


def read_claim(store: Store, shard: int) -> Claim | None:
    """The claim on a shard if its holder still lives. One that cannot be read counts as none."""
    try:
        claim = Claim(**json.loads(store.read(f"claims/{shard:05d}.json")))
        return claim if claim.alive() else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


class Claims:
    """The claims of this process in one folder: at most one at a time, with one heartbeat thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._started = psutil.Process().create_time()
        self._done = threading.Event()
        self._held: int | None = None

    def take(self, shard: int) -> bool:
        """Claim a shard; False when somebody else who lives holds it."""
        other = read_claim(self._store, shard)
        if other is not None and (other.host, other.pid) != (os.uname().nodename, os.getpid()):
            return False
        self._held = shard
        self._done.clear()
        self._beat(shard)
        self._thread = threading.Thread(target=self._keep, args=(shard,), daemon=True)
        self._thread.start()
        return True

    def free(self) -> None:
        """Give up the claim that is held, if any."""
        if self._held is None:
            return
        self._done.set()
        self._thread.join()
        self._store.delete(f"claims/{self._held:05d}.json")
        self._held = None

    def _keep(self, shard: int) -> None:
        while not self._done.wait(HEARTBEAT):
            self._beat(shard)

    def _beat(self, shard: int) -> None:
        claim = Claim(os.uname().nodename, os.getpid(), self._started, time.time())
        self._store.write(f"claims/{shard:05d}.json", json.dumps(vars(claim)).encode())
