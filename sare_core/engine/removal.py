"""Removing a folder of a stage: what was made from it, and the order in which its files go.

Records go first, about.json last: a removal that is killed leaves a folder in which less is done, and which `status`,
`gc` and another `sare rm` still know.
"""

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sare_core.engine.about import About, read_about
from sare_core.engine.checkpoints import read_checkpoint
from sare_core.engine.claims import FOLDER, claimed_folder, claimed_shards, read_claim
from sare_core.engine.fingerprint import differences
from sare_core.engine.folders import STAGES, places
from sare_core.engine.ledger import SWITCH
from sare_core.errors import ConfigError, StageError
from sare_core.store.storage import Store


@dataclass(frozen=True)
class Removable:
    """A folder by its place in the work folder. about: what its about.json says; None when that cannot be read."""

    work: str
    dataset: str
    stage: str
    name: str
    about: About | None = field(compare=False, repr=False)

    @property
    def store(self) -> Store:
        return Store(self.work).at(f"{self.dataset}/{self.stage}/{self.name}")

    def key(self) -> tuple[str, str, str]:
        return self.dataset, self.stage, self.name


def every_folder(work: str) -> list[Removable]:
    """All folders of all stages, the readable and the others."""
    return [
        Removable(work, *place, _about(Store(work).at("/".join(place))))
        for place in places(work)
        if re.fullmatch(r"[0-9a-f]{12}", place[-1])
    ]


def find(asked: str, work: str, dataset: str | None = None) -> Removable:
    """The folder of a fingerprint or path. Raises ConfigError: there is none, or more than one."""
    if "/" not in asked:
        found = [f for f in every_folder(work) if f.name == asked and dataset in (None, f.dataset)]
        where = work
    else:
        full = asked.rstrip("/") if "://" in asked else str(Path(asked).absolute())
        where, *key = full.rsplit("/", 3)
        found = [f for f in every_folder(where) if f.key() == tuple(key)]
    if not found:
        raise ConfigError(f"{asked}: no folder of a stage in {where}. Give a fingerprint of `sare status`, or a path.")
    if len(found) > 1:
        raise ConfigError(
            f"{asked}: several folders have this name: {', '.join(f.store.url for f in found)}. Give a path."
        )
    if found[0].store.on_disk and (place := found[0].store.local("")).is_symlink():
        raise ConfigError(f"{place}: a symbolic link. Remove what it leads to, then the link.")
    return found[0]


def made_from(target: Removable) -> list[Removable]:
    """The folders whose results hang on this one, the last stage first."""
    others = every_folder(target.work)
    detectors = {}
    for folder in others:
        with suppress(ConfigError):
            if folder.stage == "detectors" and (best := read_checkpoint(folder.store, "best")):
                detectors[best.sha256[:16]] = folder.key()
    found = {target.key()}
    while new := {f.key() for f in others if f.key() not in found and _sources(f, detectors) & found}:
        found |= new
    chosen = [f for f in others if f.key() in found and f.key() != target.key()]
    return sorted(chosen, key=lambda f: STAGES.index(f.stage), reverse=True)


def _sources(folder: Removable, detectors: dict[str, tuple[str, str, str]]) -> set[tuple[str, str, str]]:
    if folder.about is None:
        return set()
    sources = {(source.dataset, source.stage, source.name) for source in folder.about.upstream.values()}
    detector = detectors.get(folder.about.made_by.get("checkpoint", ""))
    return sources | ({detector} if detector else set())


def description(folder: Removable) -> str:
    """What it is, in one line: stage, dataset, preset, when it was last used, and how it differs from the newest."""
    if (about := folder.about) is None:
        return f"{folder.stage} of {folder.dataset}, about.json not readable"
    text = f"{folder.stage} of {folder.dataset}, preset {about.preset}, last run {about.described}"
    alike = [f for f in every_folder(folder.work) if f.key()[:2] == folder.key()[:2]]
    name, newest = max(((f.name, f.about) for f in alike if f.about), key=lambda found: found[1].described)
    if name == folder.name:
        return text
    changed = differences(about.made_by, newest.made_by)[:5]
    return f"{text}, other settings than {name}, the latest: {'; '.join(changed)}"


def refuse_in_use(folder: Removable) -> None:
    """Raises StageError while somebody works in the folder."""
    holders = [*claimed_shards(folder.store).values(), read_claim(folder.store, FOLDER)]
    if working := [claim for claim in holders if claim]:
        raise StageError(
            f"{folder.store.url}: in use by {working[0].holder()}. Stop it, then run the same command again."
        )


def remove(folder: Removable) -> None:
    """Remove a folder with all that is in it. Raises StageError while somebody works in it."""
    store, before = folder.store, _description(folder.store)
    refuse_in_use(folder)
    with claimed_folder(store) as held:
        if not held or claimed_shards(store):
            raise StageError(f"{store.url}: somebody began to work in it; run the same command again.")
        for name in ("last.json", SWITCH, "best.json"):
            store.delete(name)
        for name in ["records", *(name for name in store.folders() if name not in ("records", "claims"))]:
            store.delete_folder(name)
        store.delete_many([name for name in store.names() if name != "about.json"])
        store.delete_many([f"claims/{name}" for name in store.names("claims") if name != f"{FOLDER}.json"])
    if _description(store) == before:  # else a stage has begun here again, and waits for its claim
        store.delete("about.json")
    if store.on_disk:
        with suppress(OSError):  # somebody has begun to fill it anew
            store.local("claims").rmdir()
            store.local("").rmdir()


def _description(store: Store) -> bytes | None:
    try:
        return store.read("about.json")
    except FileNotFoundError:
        return None


def _about(store: Store) -> About | None:
    with suppress(FileNotFoundError, ValueError):
        return read_about(store)
    return None
