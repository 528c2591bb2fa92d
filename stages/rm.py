"""Remove what a stage has made: an abandoned ablation, or captions and maps that are no longer needed.

sare rm 3f2a9c01b7de
sare rm work/genimage/reconstructions/3f2a9c01b7de --downstream
"""

from typing import Annotated

import typer

from sare_core.engine.removal import Removable, description, find, made_from, refuse_in_use, remove
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError
from stages.options import Work


def rm(
    asked: Annotated[
        list[str], typer.Argument(metavar="FOLDER...", help="Its fingerprint, as `sare status` shows it, or its path.")
    ],
    dataset: Annotated[str | None, typer.Option("--dataset", "-d", help="Look for fingerprints here only.")] = None,
    work: Work = "work",
    downstream: Annotated[bool, typer.Option("--downstream", help="Remove too what was made from it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove captions, reconstructions, a detector or predictions, after asking."""
    named = [find(text, work, dataset) for text in asked]
    chosen: dict[str, Removable] = {}
    for folder in named:
        chosen |= {f.store.url: f for f in [*made_from(folder), folder]}
    unnamed = chosen.keys() - {folder.store.url for folder in named}
    if unnamed and not downstream:
        raise ConfigError(
            f"{', '.join(sorted(unnamed))}: made from what you name. Say --downstream to remove that too."
        )
    for folder in chosen.values():
        refuse_in_use(folder)
        sizes = folder.store.sizes()
        console.print(folder.store.url, soft_wrap=True)
        what = f"  {description(folder)}; {len(sizes)} files, {sum(sizes.values()) / 1e6:.1f} MB"
        console.print(what, soft_wrap=True)
    if not yes:
        typer.confirm(f"Remove {'this folder' if len(chosen) == 1 else f'these {len(chosen)} folders'}?", abort=True)
    for folder in chosen.values():
        remove(folder)
    console.print(f"removed: {len(chosen)} folder{'s' if len(chosen) > 1 else ''}")
