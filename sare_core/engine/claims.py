"""Claims: a small file that says who works on a shard, kept fresh by a heartbeat.

A claim saves work and feeds `status`; which output counts never depends on one, since the record names it. Whoever
removes files (`gc`, `rm`, the gathering of records) claims the folder as a whole: then nobody begins a shard.
"""

import contextlib
import re
import threading
import time
from collections.abc import Iterator

from sare_core.engine.owner import Owner, this_process
from sare_core.engine.signals import wait
from sare_core.errors import SareError
from sare_core.store.storage import Store

HEARTBEAT = 20.0  # seconds between beats
LOST = 180.0  # a claim without a beat for so long may be taken over
SETTLE = 0.2  # seconds in which two who take over the same claim have both written
FOLDER = "folder"  # claimed in place of a shard: the whole folder


class Claim(Owner):
    """Who holds a shard. `quiet`: seconds since the holder's last heartbeat, by the clock that stamps the files.

    Never by a host's own clock: two hosts may differ by an hour.
    """

    quiet: float

    def alive(self) -> bool:
        """False when the holder is surely gone: its process is dead, or its heartbeat has expired.

        The heartbeat counts for a process that still runs too: it may be suspended, or run another program by now.
        """
        return self.quiet < LOST and self.running() is not False

    def holder(self) -> str:
        return f"{self.host}, process {self.pid}"


def read_claim(store: Store, shard: int | str) -> Claim | None:
    """The claim on a shard, or on the FOLDER, if its holder still lives. One that cannot be read counts as none."""
    name = _name(shard)
    try:
        owner = Owner.model_validate_json(store.read(name), strict=True)
        claim = Claim(**owner.model_dump(), quiet=store.age(name))
    except (FileNotFoundError, ValueError):
        return None
    return claim if claim.alive() else None


def claimed_shards(store: Store) -> dict[int, Claim]:
    """All shards that somebody who lives works on. Reads the claims that lie there, not one a shard."""
    numbers = [int(name[:-5]) for name in store.names("claims") if re.fullmatch(r"\d+\.json", name)]
    return {number: claim for number in numbers if (claim := read_claim(store, number)) is not None}


class Claims:
    """The claims of this process in one folder: at most one at a time, with one heartbeat thread."""

    def __init__(self, store: Store) -> None:
        self._store, self._owner = store, this_process()
        self._done = threading.Event()
        self._held: int | str | None = None

    def take(self, shard: int | str) -> bool:
        """Claim a shard, or the FOLDER; False when somebody else who lives holds it, or the folder.

        Shards that are claimed before the folder stay so: its holder has to ask for `claimed_shards`.
        """
        if not self._store.create(_name(shard), self._data()):
            if self._of_another(shard):
                return False
            self._store.write(_name(shard), self._data())
            # Two who find the same dead claim both write; the one who wrote last has it.
            time.sleep(SETTLE)
            if self._of_another(shard):
                return False
        self._held = shard
        self._done.clear()
        self._thread = threading.Thread(target=self._keep, args=(shard,), daemon=True)
        self._thread.start()
        # Asked for when our claim lies: either the folder's holder sees it, or we see theirs.
        if self._of_another(FOLDER):
            self.free()
            return False
        return True

    def take_over(self, shard: int, poll: float) -> bool:
        """As `take`, but a claim whose holder may be dead is waited for; False once the holder is known to live.

        poll: seconds between two looks. Raises Stopped, within `stop_cleanly`.
        """
        quiet = float("-inf")
        while not self.take(shard):
            if (claim := read_claim(self._store, shard)) is not None:
                if claim.running() or claim.quiet < quiet:  # or it has beaten since
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
        if (now := read_claim(self._store, shard)) is not None and self._mine(now):
            self._store.delete(_name(shard))

    def _mine(self, claim: Claim) -> bool:
        return claim.model_dump(exclude={"quiet"}) == self._owner.model_dump()

    def _of_another(self, shard: int | str) -> bool:
        return (claim := read_claim(self._store, shard)) is not None and not self._mine(claim)

    def _keep(self, shard: int | str) -> None:
        while not self._done.wait(HEARTBEAT):
            # A beat that is missed is made up by the next; without any, others may take the shard, and no harm is done.
            with contextlib.suppress(SareError, OSError):
                self._store.write(_name(shard), self._data())

    def _data(self) -> bytes:
        return self._owner.model_dump_json().encode()


@contextlib.contextmanager
def claimed_folder(store: Store) -> Iterator[bool]:
    """Hold the claim on a whole folder; False when somebody else who lives holds it."""
    claims = Claims(store)
    held = claims.take(FOLDER)
    try:
        yield held
    finally:
        claims.free()


def _name(shard: int | str) -> str:
    return f"claims/{shard:05d}.json" if isinstance(shard, int) else f"claims/{shard}.json"
