"""All that a run found, as one page to look at: pictures, tables, figures, settings.

    sare report --dataset mini --preset mini
    sare report --dataset forensynths --preset paper --trained-on genimage
    sare report --dataset photos --detector /shared/my-detector --view jpeg:70
    sare report --dataset mini --preset mini --control "a map of zeros=detector.semantic_input=zero"

Reads what the other stages left, and loads no model. Writes WORK/<dataset>/report/<fp of the predictions>/:
index.html, which needs nothing beside it; figures/*.png; tables/*.csv, the numbers behind tables and figures.
"""

from typing import Annotated

import typer

from sare_core.engine.folders import check_run_name
from sare_core.engine.manifest import read_index
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError, StageError
from sare_core.graph import scoring
from sare_core.report.build import write_report
from stages import options
from stages.options import filled, run_command

Out = Annotated[
    str | None, typer.Option("--out", callback=filled, help="Folder or URL of the report. Default: in the work folder.")
]

LONGEST = 60  # characters of a control's name

Control = Annotated[
    list[str] | None,
    typer.Option(
        help="A detector to stand beside this one, as NAME=SETTING: trained and evaluated with that one setting more."
    ),
]


def report(
    dataset: options.Dataset,
    preset: options.OtherPreset = None,
    set_: options.Set = None,
    work: options.Work = "work",
    manifests: options.Manifests = "manifests",
    trained_on: options.TrainedOn = None,
    detector: options.Detector = None,
    view: options.View = None,
    out: Out = None,
    run_name: options.RunName = None,
    control: Control = None,
) -> None:
    """Write a page of all that a run found: pictures, tables, figures, settings."""
    if control and detector:
        raise ConfigError(
            "--control goes with --preset and --set: name the settings by which this detector was trained, in place of "
            "--detector."
        )
    index = read_index(manifests, dataset)
    settings, found, source = scoring(index, manifests, trained_on, preset, set_, detector, view, work)
    controls = {}
    for name, setting in map(_named, control or []):
        if name in controls:
            raise ConfigError(f"--control {name}: is named twice.")
        try:
            chosen = scoring(index, manifests, trained_on, preset, [*(set_ or []), setting], None, view, work)
        except (ConfigError, StageError) as error:
            raise ConfigError(f"--control {name}={setting}: {error} And: --set {setting}.") from error
        controls[name] = (chosen.settings, chosen.detector)
    run, name = run_name and check_run_name(run_name), options.origin(preset, detector)
    written = write_report(settings, index, found, source, work, name, run, out, controls)
    for sentence in written.result:
        console.print(sentence, soft_wrap=True)
    console.print(f"report: {written.page}", soft_wrap=True)


def _named(control: str) -> tuple[str, str]:
    name, _, setting = control.partition("=")
    if not (name.strip() and "=" in setting):
        raise ConfigError(f"--control {control}: write it as NAME=SETTING, as zeros=detector.semantic_input=zero.")
    if len(name) > LONGEST:
        raise ConfigError(f"--control {name[:LONGEST]}…: give it a name of at most {LONGEST} characters.")
    return name.strip(), setting


if __name__ == "__main__":
    run_command(report)
