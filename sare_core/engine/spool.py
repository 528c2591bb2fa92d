"""Names of the files in the spool: each says who writes it, so that one whose process was killed can be told."""

import re
from pathlib import Path
from typing import NamedTuple

from sare_core.engine.folders import Folder
from sare_core.engine.owner import Owner, this_process
from sare_core.store.storage import spool_folder


class Spooled(NamedTuple):
    dataset: str
    owner: Owner


def shard_path(folder: Folder, shard: int, suffix: str) -> Path:
    """Where this process writes a shard before it is put in place."""
    me = this_process()
    what = f"sare-{folder.dataset}-{folder.stage}-{folder.fingerprint}-{shard:05d}"
    return spool_folder() / f"{what}@{me.host}.{me.machine}.{me.pid}.{me.started:.0f}{suffix}"


def read_name(name: str) -> Spooled | None:
    """What the name of a spool file says; None for a file that sare has not written."""
    found = re.fullmatch(
        r"sare-(?P<dataset>.+)-[a-z]+-[0-9a-f]{12}-\d{5,}"
        r"@(?P<host>.+)\.(?P<machine>[0-9a-f]*)\.(?P<pid>[1-9]\d*)\.(?P<started>\d+)\.(tar|parquet)",
        name,
    )
    if found is None:
        return None
    facts = found.groupdict()
    return Spooled(facts.pop("dataset"), Owner.model_validate(facts))
