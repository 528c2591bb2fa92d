"""What `gc` removes: files that nothing names any more and that nobody is about to name.

A stage puts a file in place first and names it afterwards. So listings are read first, then claims, then records: what
comes while gc looks is in no listing, or is claimed, or has its record. What is left has to have lain for an hour. It
is removed while gc holds the claim on the folder, so that no stage can put the same bytes under the same name.
"""

import re
from collections.abc import Collection, Iterator

from sare_core.engine.checkpoints import read_checkpoint
from sare_core.engine.claims import FOLDER, claimed_folder, claimed_shards, read_claim
from sare_core.engine.folders import Folder
from sare_core.engine.ledger import SWITCH
from sare_core.engine.manifest import INDEX_FILE, Index, named_files
from sare_core.engine.spool import read_name
from sare_core.store.storage import Store, spool_folder

GRACE = 3600.0  # seconds for which a file has to have lain unnamed
INDEX_GRACE = 7 * 86400.0  # of an index's files: a stage reads the index that it began with to its end
SPOOL_GRACE = 86400.0  # of another host's spool file: whether its process still runs cannot be told here

# Only what sare writes: the notes that somebody keeps beside it are not garbage.
_WRITTEN = re.compile(
    r"\d{5,}-[0-9a-f]{12}\.(tar|parquet)|records-[0-9a-f]{12}\.parquet|(last|best)-[0-9a-f]{12}\.safetensors"
    r"|\..+\.tmp|\.clock\..+"
)


def orphaned_files(folder: Folder, index: Index, grace: float = GRACE) -> Iterator[str]:
    """Names in a folder that nothing vouches for: left by a kill, by an output that was replaced, or by a shard that
    left the index.

    Raises ConfigError where what names the files cannot be read.
    """
    store = folder.store
    files, records, claims = store.names(), store.names("records"), store.names("claims")
    live = claimed_shards(store).keys()
    # What a new index leaves out is not gone at once: stages that began before go on with the old one.
    known = index.digests.keys() if _unnamed(index.store, grace, INDEX_FILE) else None
    named, unreadable = _named(folder, known)
    for name in filter(_WRITTEN.fullmatch, files):
        shard = re.match(r"\.?(\d{5,})-", name)
        busy = bool(live) if shard is None else int(shard[1]) in live or int(shard[1]) in unreadable
        namers = [f"records/{shard[1]}.json"] if shard else ["last.json", "best.json"]
        if name not in named and not busy and _unnamed(store, grace, name, *namers, SWITCH):
            yield name
    for name in records:
        number = re.fullmatch(r"(\d+)\.json", name) if folder.stage != "detectors" else None
        left = number and known is not None and int(number[1]) not in known and int(number[1]) not in live
        if (left or (name.endswith(".tmp") and not live)) and _unnamed(store, grace, f"records/{name}"):
            yield f"records/{name}"
    for name in claims:
        number = re.fullmatch(r"(\d+)\.json", name)
        dead = int(number[1]) not in live if number else not live
        if name == f"{FOLDER}.json":
            dead = read_claim(store, FOLDER) is None
        if dead and _unnamed(store, grace, f"claims/{name}"):
            yield f"claims/{name}"
    if is_empty(folder) and _unnamed(store, grace, "about.json"):
        yield "about.json"


def is_empty(folder: Folder) -> bool:
    """Whether only its description lies there and nobody works on it: the run failed before its first result."""
    store = folder.store
    return store.names() == ["about.json"] and not store.names("records") and not claimed_shards(store)


def remove_orphans(folder: Folder, index: Index, names: Collection[str], grace: float = GRACE) -> bool:
    """Remove those of `names` that are still orphans; False, and nothing is, when somebody holds the whole folder."""
    with claimed_folder(folder.store) as held:
        if held:
            folder.store.delete_many(sorted(set(names) & set(orphaned_files(folder, index, grace))))
        return held


def _named(folder: Folder, known: Collection[int] | None) -> tuple[Collection[str], Collection[int]]:
    """The files that count; and the shards whose record cannot be read, so that nobody knows what it names.

    known: the shards of the index; None for all.
    """
    if folder.stage == "detectors":
        checkpoints = [read_checkpoint(folder.store, name) for name in ("last", "best")]
        return {checkpoint.file for checkpoint in checkpoints if checkpoint}, set()
    entries, unreadable = folder.ledger.entries()
    named = {entry.output for shard, entry in entries.items() if entry.output and (known is None or shard in known)}
    return named | ({name} if (name := folder.ledger.file()) else set()), unreadable


def _unnamed(store: Store, grace: float, name: str, *namers: str) -> bool:
    """Whether a file has lain for so long, and what could have named it until then has not changed for so long."""

    def changed(file: str) -> bool:
        try:
            return store.age(file) < grace
        except FileNotFoundError:
            return file == name  # gone already; what names it need not be there

    return not any(map(changed, (name, *namers)))


def replaced_indexes(manifests: Store, dataset: str) -> Iterator[str]:
    """Files of a dataset's earlier indexes, by their names in the manifests folder, and what a kill left there."""
    store = manifests.at(dataset)
    files, named = store.names(), named_files(store)
    for name in files:
        written = re.fullmatch(r"(images|shards)-[0-9a-f]{12}\.parquet|\..+\.tmp", name)
        if named and written and name not in named and _unnamed(store, INDEX_GRACE, name, INDEX_FILE):
            yield f"{dataset}/{name}"


def dead_spools(dataset: str | None = None) -> Iterator[str]:
    """Names of files in the spool that a process was writing which is gone; of one dataset, or of all."""
    store = Store(str(spool_folder()))
    for name in store.names() if spool_folder().is_dir() else []:
        if (spooled := read_name(name)) is None or dataset not in (None, spooled.dataset):
            continue
        running = spooled.owner.running()
        if running is False or (running is None and _unnamed(store, SPOOL_GRACE, name)):
            yield name
