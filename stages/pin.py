"""Hub models to fixed commits: writes the newest commit of each into a settings file.

    sare pin mine.yaml                           # in place; comments stay
    sare pin paper --out paper-pinned.yaml       # a preset, as a file of your own

Runs with that file use these commits, in any work folder and on any machine. What is pinned already stays as it is: for
a newer commit remove its revision, and pin again. Folders of models are not touched, since they count by their bytes.
"""

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from sare_core.config import load_settings, preset_names
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError
from sare_core.models.pins import is_commit
from sare_core.models.weights import is_hub_id, resolve
from sare_core.pinning import models_in, write_revisions
from sare_core.store.storage import Store
from stages.options import run_command


def pin(
    settings: Annotated[str, typer.Argument(help="A settings file in YAML, or the name of a preset.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="A new file to write to. Default: the settings file itself.")
    ] = None,
) -> None:
    """Write the newest commits of a settings file's hub models into it, so that they never change."""
    packaged = settings in preset_names()
    if packaged and out is None:
        raise ConfigError(f"{settings} is a preset of the package. Name a file of your own: --out {settings}.yaml")
    if out is not None and out.exists():
        raise ConfigError(f"--out {out}: exists. Name a new file, or pin that one: sare pin {out}")
    if out is not None and out.suffix not in {".yaml", ".yml"}:
        raise ConfigError(f"--out {out}: a settings file's name ends in .yaml.")
    models = list(models_in(load_settings(settings)))
    hub = [named for named in models if is_hub_id(named.model) and not Path(named.model).is_dir()]
    commits = {
        named: resolve(named.model, named.revision).digest.removeprefix("commit:")
        for named in hub
        if not is_commit(named.revision)
    }
    source = files("sare_core.config.presets") / f"{settings}.yaml" if packaged else Path(settings)
    target = out or Path(settings)
    if commits or out is not None:
        text = write_revisions(source.read_bytes().decode(), commits)
        Store(str(target.parent)).write(target.name, text.encode())
    for named in models:
        state = commits.get(named) or (f"{named.revision} (pinned before)" if named in hub else "a folder")
        console.print(f"{named.section}.{named.key}: {named.model}: {state}", soft_wrap=True)
    console.print(f"pin: {len(commits)} models pinned. {target}", soft_wrap=True)


if __name__ == "__main__":
    run_command(pin)
