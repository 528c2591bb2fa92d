"""What lies in a work folder: `status` and `verify` read records, claims and descriptions, and load no model."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from sare_core.engine.checkpoints import load_tensors, read_checkpoint
from sare_core.engine.claims import Claims, claimed_shards, read_claim
from sare_core.engine.fingerprint import differences
from sare_core.engine.folders import COMMANDS, About, Folder, Record, State, places
from sare_core.engine.manifest import Index, check_name, has_index, read_index
from sare_core.engine.shardfiles import read_back
from sare_core.errors import ConfigError, StageError
from sare_core.store.storage import Store, sha256_file


def folders(work: str, dataset: str | None = None, broken: list[str] | None = None) -> Iterator[Folder]:
    """Every folder of every stage, of one dataset or of all.

    A folder that cannot be opened is left out and told in `broken`; without that list it raises ConfigError.
    """
    for place in places(work, dataset):
        try:
            yield Folder.open(work, *place)
        except ConfigError as error:
            left = Store(work).at("/".join(place))
            if not left.names() and not left.names("records"):  # a directory that gc emptied
                continue
            if broken is None:
                raise
            if str(error) not in broken:  # others may be made from it
                broken.append(str(error))


class Training(NamedTuple):
    """A detector's checkpoints: the last one's epoch and step, of how many epochs, and the best one's epoch."""

    epoch: int
    epochs: int
    step: int
    finished: bool
    best_epoch: int | None


def indexed_folders(
    work: str, manifests: str, dataset: str | None, broken: list[str]
) -> Iterator[tuple[Folder, Index]]:
    """Every folder as `folders` finds it, with its dataset's index. What cannot be read is told in `broken`, once.

    Raises ConfigError: the work folder is not there, or neither it nor the indexes know the dataset.
    """
    store = Store(work)
    if store.on_disk and not store.exists(""):
        raise ConfigError(f"{work}: no such folder. Name the one where the stages wrote (--work).")
    if dataset is not None:
        check_name(dataset)
        computed = list(dict.fromkeys(place[0] for place in places(work)))
        if dataset not in computed and not has_index(manifests, dataset):
            there = f"It has: {', '.join(computed)}." if computed else "Nothing has been computed there."
            raise ConfigError(f"{work}: has no dataset {dataset!r}. {there}")
    indexes: dict[str, Index | None] = {}
    for folder in folders(work, dataset, broken):
        if folder.dataset not in indexes:
            try:
                indexes[folder.dataset] = read_index(manifests, folder.dataset)
            except ConfigError as error:
                indexes[folder.dataset] = None
                broken.append(str(error))
        if (index := indexes[folder.dataset]) is not None:
            yield folder, index


@dataclass
class Summary:
    """One folder in figures. rate: images a second of one process; eta: seconds for what is not done.

    training: how far a detector is. holder: who trains it now. Both None for other stages.
    """

    folder: Folder
    about: About  # as it lies
    states: dict[int, State] = field(default_factory=dict)
    rate: float | None = None
    eta: float | None = None
    failures: Counter[str] = field(default_factory=Counter)
    note: str = ""
    training: Training | None = None
    holder: str | None = None

    def count(self, kind: str) -> int:
        return sum(state.kind == kind for state in self.states.values())

    def reasons(self) -> Counter[str]:
        """Why shards are not done, counted."""
        return Counter(str(state) for state in self.states.values() if state.why)


def summarize(folder: Folder, index: Index) -> Summary:
    """The state of one folder now, from its records and claims alone."""
    summary = Summary(folder, folder.about())
    if folder.stage == "detectors":
        last, best = read_checkpoint(folder.store, "last"), read_checkpoint(folder.store, "best")
        epochs = folder.made_by["settings"]["epochs"]
        summary.note = f"epoch {last.epoch} of {epochs}, step {last.step}" if last else "no checkpoint yet"
        if last and last.finished and best:
            summary.note = f"trained; best epoch {best.epoch} of {epochs}"
        if last:
            summary.training = Training(last.epoch, epochs, last.step, last.finished, best.epoch if best else None)
        if claim := read_claim(folder.store, 0):
            summary.holder = claim.holder()
            summary.note += f"; running: {summary.holder}"
        return summary
    states, entries = folder.states_and_entries({shard: index.digests[shard] for shard in folder.expected(index)})
    live = claimed_shards(folder.store)
    claimed = {shard: live[shard] for shard, state in states.items() if state.kind != "done" and shard in live}
    summary.states = states | {shard: State("running", claim.holder()) for shard, claim in claimed.items()}
    done = {shard: entry for shard, entry in entries.items() if entry.status == "done"}
    if any(entry.failed for entry in done.values()):
        summary.failures = Counter(failure.reason for failure in folder.failures(done))
    seconds = sum(entry.seconds for entry in done.values())
    if seconds > 0:
        summary.rate = sum(entry.images for entry in done.values()) / seconds
        sizes = dict(zip(index.shards["shard"], index.shards["images"], strict=True))
        left = sum(sizes[shard] for shard, state in states.items() if state.kind != "done")
        summary.eta = left / summary.rate / max(len(claimed), 1)
    return summary


def others_differ(summary: Summary, newest: Summary) -> list[str]:
    """What sets a folder apart from another one of its stage, one line a field."""
    return differences(summary.folder.made_by, newest.folder.made_by)


def mixed_libraries(folder: Folder) -> list[str]:
    """A line that names the libraries of which a folder's shards were made with several versions; none: no line."""
    shards: dict[str, Counter[str]] = {}
    for libraries, count in folder.ledger.libraries():
        for library, version in libraries.items():
            shards.setdefault(library, Counter())[version] += count
    mixed = [
        f"{library} " + ", ".join(f"{version} ({count} shards)" for version, count in versions.most_common())
        for library, versions in sorted(shards.items())
        if len(versions) > 1
    ]
    return [f"its shards were made with several versions of libraries: {'; '.join(mixed)}"] if mixed else []


def superseded(summaries: list[Summary]) -> dict[str, str]:
    """By fingerprint: folders that are not the latest of any run, and in one short line what the latest has changed.

    What the latest of a run is made from is no older one: a detector may read several maps.
    """
    latest: dict[tuple[str, str, str], Summary] = {}
    for summary in sorted(summaries, key=lambda summary: summary.about.described):
        for run in summary.about.names():
            latest[summary.folder.dataset, summary.folder.stage, run] = summary
    used: set[str] = set()
    for summary in latest.values():
        used |= _before(summary.folder)
    lines = {}
    for summary in summaries:
        newer = [latest[summary.folder.dataset, summary.folder.stage, run] for run in summary.about.names()]
        if all(other is not summary for other in newer) and summary.folder.store.url not in used:
            changes = others_differ(summary, newer[-1])
            shown = changes[:2]  # each is short, and so is the line
            more = f" and {len(changes) - 2} more" if len(changes) > 2 else ""
            lines[summary.folder.fingerprint] = (
                f"older than {newer[-1].folder.fingerprint}, the latest of run {summary.about.names()[-1]}: "
                f"{'; '.join(shown)}{more}"
            )
    return lines


def _before(folder: Folder) -> set[str]:
    """The URLs of all that a folder is made from."""
    return {url for before in folder.upstream.values() for url in (before.store.url, *_before(before))}


class IntegrityError(NamedTuple):
    """What a record promises and a file does not keep, with the cure; and the shard to do again, if it is one's."""

    text: str
    shard: int | None = None


def integrity_errors(folder: Folder, index: Index) -> Iterator[IntegrityError]:
    """Reads back everything that a folder's records promise; yields what is not so, with the cure."""
    store = folder.store
    if folder.stage == "detectors":
        for name in ("last", "best"):
            try:
                if checkpoint := read_checkpoint(store, name):
                    load_tensors(store, checkpoint)
            except ConfigError as error:
                yield IntegrityError(str(error))
        return
    try:
        records = folder.records()
    except ConfigError as error:
        yield IntegrityError(str(error))
        return
    for name in store.names("records"):
        stem = name.removesuffix(".json")
        in_flight = name.endswith(".tmp")  # being written now, or orphaned
        if not in_flight and (not stem.isdigit() or int(stem) not in records):
            yield IntegrityError(
                f"{store.path('records/' + name)}: not a readable record; delete it, run the stage again."
            )
    for shard, record in records.items():
        if shard not in index.digests:  # it left the index: gc's business
            continue
        for fault in _record_faults(folder, index, shard, record):
            yield IntegrityError(f"{store.path(f'records/{shard:05d}.json')}: {fault}", shard)


def _record_faults(folder: Folder, index: Index, shard: int, record: Record) -> Iterator[str]:
    again = f"`sare verify --reopen` opens the shard again; then run sare {COMMANDS[folder.stage]} for shard {shard}."
    if (record.shard, record.fingerprint, record.stage) != (shard, folder.fingerprint, folder.stage):
        yield f"belongs to another shard or folder; {again}"
    if record.status == "failed":
        return
    if record.images != record.ok + len(record.failures):
        yield f"{record.images} images went in, {record.ok} + {len(record.failures)} came out; {again}"
    if record.output is None or not folder.store.exists(record.output.name):
        yield f"names {record.output.name if record.output else 'no output'}, which is not there; {again}"
        return
    try:
        with folder.store.fetched(record.output.name) as path:
            if path.stat().st_size != record.output.bytes or sha256_file(path) != record.output.sha256:
                yield f"{record.output.name} is not the bytes that the record names; {again}"
                return
            found = read_back(path)
    except (StageError, OSError) as error:
        yield f"{record.output.name} cannot be read ({error}); {again}"
        return
    if len(found) != record.ok:
        yield f"{record.output.name} holds {len(found)} samples, the record says {record.ok}; {again}"
    if short := sorted(key for key, fields in found.items() if not fields >= set(record.fields)):
        yield f"{record.output.name}: {short[0]} lacks one of {', '.join(record.fields)}; {again}"
    if record.inputs.get("index") == index.digests.get(shard):
        keys = {row["image_id"] for row in index.rows(shard)}
        accounted = found.keys() | {failure.image_id for failure in record.failures}
        if keys != accounted:
            odd = sorted(keys ^ accounted)
            yield f"{len(odd)} images of the index are lost or unknown here, the first is {odd[0]}; {again}"


def reopen(folder: Folder, shard: int, why: str) -> bool:
    """Make a shard one that is to be done again, whatever its record says; False when somebody works on it just now."""
    claims = Claims(folder.store)
    if not claims.take(shard):  # else records that are gathered meanwhile could bury this one
        return False
    try:
        record = folder.record(shard)
        assert record is not None, "an integrity error names a shard with a record"
        # Under its own name, also where the record is another shard's or folder's.
        own = {"shard": shard, "stage": folder.stage, "fingerprint": folder.fingerprint, "dataset": folder.dataset}
        changes = {"status": "failed", "error": f"reopened: {why}", "output": None}
        folder.commit(record.model_copy(update=own | changes))
    finally:
        claims.free()
    return True
