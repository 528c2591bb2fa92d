"""Which shards a command works on: those of its splits and subsets, or those that `--shard` names."""

import re
from collections.abc import Iterator, Sequence

from sare_core.engine.manifest import Index
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError


def chosen_shards(
    index: Index, splits: Sequence[str], subsets: tuple[str, ...] | None, wanted: str | None
) -> list[int]:
    """The shards that a stage works on: those of the test split, of train and val of the training subsets, or `wanted`.

    Raises ConfigError: a shard that the index does not have for this stage, or a range that cannot be read.
    """
    known = index.shards["subset"].unique().to_list()
    trained = set(index.select(["train", "val"])["subset"])
    if trained and (odd := sorted(set(subsets or ()) - trained)) and "train" in splits:
        # Right where only the test split is wanted, so no error here; train refuses it.
        console.print(f"note: train_subsets names {', '.join(odd)}, of which {index.about['dataset']!r} trains none.")
    shards = []
    for split in splits:
        chosen = None if split == "test" or subsets is None else list(subsets)
        shards += index.select([split], chosen)["shard"].to_list()
    shards.sort()
    if wanted is None:
        return shards
    asked, there = set[int](), set(shards)
    for shard in _parse_shards(wanted):
        if shard not in there:  # at the first, for a range may have any length
            raise ConfigError(
                f"--shard {wanted}: {index.about['dataset']!r} has no shard {shard} for this stage; "
                f"it has {ranges_text(shards)} (subsets: {', '.join(sorted(known))})."
            )
        asked.add(shard)
    return sorted(asked)


def _parse_shards(text: str) -> Iterator[int]:
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not re.fullmatch(r"[0-9]{1,18}(-[0-9]{1,18})?", part.strip()) or int(last or first) < int(first):
            raise ConfigError(f"--shard {text}: write a number, a range like 0-9, or a list like 2,5,7.")
        yield from range(int(first), int(last or first) + 1)


def ranges_text(shards: list[int]) -> str:
    """Sorted shards as --shard takes them: `0-9,12`."""
    runs: list[list[int]] = []
    for shard in shards:
        if runs and shard == runs[-1][1] + 1:
            runs[-1][1] = shard
        else:
            runs.append([shard, shard])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs) or "none"
