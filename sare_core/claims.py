"""Claims: a small file that says who works on a shard, kept fresh by a heartbeat.

A claim only saves work and feeds `status`; what is right never depends on one, since the record names one output.
"""

import contextlib
import json
import os
import re
import threading
import time
from dataclasses import dataclass

import psutil

from sare_core.errors import SareError
from sare_core.signals import wait
from sare_core.storage import Store

HEARTBEAT = 20.0  # seconds between beats
LOST = 180.0  # a claim of another host without a beat for so long may be taken over
SETTLE = 0.2  # seconds in which two who take over the same claim have both written


@dataclass(frozen=True)
class Claim:
    """Who holds a shard. `quiet`: seconds since the holder's last heartbeat, by the clock that stamps the files.

    Never by a host's own clock: two hosts may differ by an hour.
    """

    host: str
    pid: int
    started: float  # of the process, by its host's clock, so that a reused pid is not mistaken for it
    quiet: float

    def alive(self) -> bool:
        """False when the holder is surely gone: its process is dead (same host), or its heartbeat has expired."""
        if self.host == os.uname().nodename:
            try:
                process = psutil.Process(self.pid)
                # A killed process stays as a zombie until its parent asks for it, in a container perhaps for ever.
                zombie = process.status() == psutil.STATUS_ZOMBIE
                return not zombie and abs(process.create_time() - self.started) < 1.0
            except psutil.NoSuchProcess:
                return False
        return self.quiet < LOST

    def mine(self) -> bool:
        return (self.host, self.pid) == (os.uname().nodename, os.getpid())

    def holder(self) -> str:
        return f"{self.host}, process {self.pid}"


def read_claim(store: Store, shard: int) -> Claim | None:
    """The claim on a shard if its holder still lives. One that cannot be read counts as none."""
    name = _name(shard)
    try:
        written = json.loads(store.read(name))
        claim = Claim(**written, quiet=store.clock() - store.modified(name))
        return claim if claim.alive() else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


def claimed_shards(store: Store) -> dict[int, Claim]:
    """All shards that somebody who lives works on. Reads the claims that lie there, not one a shard."""
    numbers = [int(name[:-5]) for name in store.names("claims") if re.fullmatch(r"\d+\.json", name)]
    return {number: claim for number in numbers if (claim := read_claim(store, number)) is not None}


class Claims:
    """The claims of this process in one folder: at most one at a time, with one heartbeat thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mark = {"host": os.uname().nodename, "pid": os.getpid(), "started": psutil.Process().create_time()}
        self._done = threading.Event()
        self._held: int | None = None

    def take(self, shard: int) -> bool:
        """Claim a shard; False when somebody else who lives holds it."""
        if not self._store.create(_name(shard), self._data()):
            other = read_claim(self._store, shard)
            if other is not None and not other.mine():
                return False
            self._store.write(_name(shard), self._data())
            # Two who find the same dead claim both write; the one who wrote last has it.
            time.sleep(SETTLE)
            if (now := read_claim(self._store, shard)) is not None and not now.mine():
                return False
        self._held = shard
        self._done.clear()
        self._thread = threading.Thread(target=self._keep, args=(shard,), daemon=True)
        self._thread.start()
        return True

    def take_over(self, shard: int, poll: float) -> bool:
        """As `take`, but a claim whose holder may be dead is waited for; False once the holder is known to live.

        poll: seconds between two looks. Raises Stopped, within `stop_cleanly`.
        """
        quiet = float("-inf")
        while not self.take(shard):
            if (claim := read_claim(self._store, shard)) is not None:
                if claim.host == os.uname().nodename or claim.quiet < quiet:  # its process lives; or it has beaten
                    return False
                quiet = claim.quiet
                wait(poll)
        return True

    def free(self) -> None:
        """Give up the claim that is held, if any; one that another process took over meanwhile is left to it."""
        if self._held is None:
            return
        shard, self._held = self._held, None
        self._done.set()
        self._thread.join(timeout=HEARTBEAT)  # it may hang in a request
        if (now := read_claim(self._store, shard)) is not None and now.mine():
            self._store.delete(_name(shard))

    def _keep(self, shard: int) -> None:
        while not self._done.wait(HEARTBEAT):
            # A beat that is missed is made up by the next; without any, others may take the shard, and no harm is done.
            with contextlib.suppress(SareError, OSError):
                self._store.write(_name(shard), self._data())

    def _data(self) -> bytes:
        return json.dumps(self._mark).encode()


def _name(shard: int) -> str:
    return f"claims/{shard:05d}.json"
