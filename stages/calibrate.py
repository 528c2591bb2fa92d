"""Thresholds for a detector from photographs of your own (sare_core/detection), which `sare detect` then finds.

    sare calibrate --detector DETECTOR --reals photos/ --fpr 0.01
    sare calibrate --detector DETECTOR --reals photos/ --fakes generated/ --fpr 0.01 --miss-rate 0.05
    sare calibrate --detector DETECTOR --check later-photos/        # do the thresholds still hold?

The photographs must be real for certain, of the kind that will be checked, and as they arrive there: the same cameras,
sites and ways of processing. DETECTOR/calibrations/<digest>.json holds the result.
"""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from sare_core.detection import calibration as calibrations
from sare_core.detection import words
from sare_core.detection.calibration import Scored
from sare_core.detection.examining import Examiner
from sare_core.detection.running import examined
from sare_core.detection.sources import sources
from sare_core.detection.text import shown
from sare_core.detection.thresholds import FAKES, REALS, require_enough
from sare_core.engine.progress import bar
from sare_core.engine.signals import stop_cleanly
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError
from sare_core.images.decoding import image_id
from sare_core.store.storage import Store
from stages import options


def calibrate(
    detector: Annotated[str, typer.Option(callback=options.filled, help="A trained detector: as for sare detect.")],
    reals: Annotated[
        str | None, typer.Option(callback=options.filled, help="Folder, table or list of real photographs.")
    ] = None,
    fakes: Annotated[
        str | None, typer.Option(callback=options.filled, help="The same of generated images; for likely_real.")
    ] = None,
    fpr: Annotated[
        float | None,
        typer.Option(min=1e-6, max=0.5, help="Share of real photographs that may be called likely_ai. [0.01]"),
    ] = None,
    miss_rate: Annotated[
        float | None,
        typer.Option(min=1e-6, max=0.5, help="Share of generated images that may be called likely_real. [as --fpr]"),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(callback=options.filled, help="Compare a later folder of real photographs with the calibration."),
    ] = None,
    calibration: Annotated[
        str | None, typer.Option(callback=options.filled, help="For --check: its digest or file. Default: the latest.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(callback=options.filled, help="Folder or URL to keep it in. Default: the detector's.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the photographs. Default: their folder.")] = None,
    view: options.View = None,
    set_: options.Set = None,
    work: options.Work = "work",
) -> None:
    """Set thresholds for sare detect from your own real photographs, or check them against later ones.

    Exits with 1 where --check finds that later photographs score differently, or more of them above the threshold than
    was to be expected.
    """
    if (reals is None) == (check is None):
        raise ConfigError("name real photographs: --reals FOLDER sets thresholds, --check FOLDER checks them.")
    if "-" in (reals, fakes, check):
        raise ConfigError("standard input can be read once, and these are read twice: name a folder, table or list.")
    setting = {"--fakes": fakes, "--fpr": fpr, "--miss-rate": miss_rate, "--out": out, "--name": name}
    if check is not None and (beside := [option for option, value in setting.items() if value is not None]):
        raise ConfigError(f"--check sets no thresholds, so that {', '.join(beside)} would do nothing. Leave it out.")
    if check is None and calibration is not None:
        raise ConfigError("--calibration names the one that --check looks at; --reals makes another. Leave it out.")
    if miss_rate is not None and fakes is None:
        raise ConfigError("--miss-rate is of generated images: name some, --fakes FOLDER, or leave it out.")
    fpr = fpr or 0.01
    places = [(reals, shown(name) if name else _name(reals), fpr, REALS)] if reals else []
    places += [(fakes, _name(fakes), miss_rate or fpr, FAKES)] if fakes else []
    for place, label, rate, kind in places:  # before they are scored, which takes long
        require_enough(len(list(sources([place]))), rate, label, kind)
    if check is not None and not list(sources([check])):
        raise ConfigError(f"{check}: no images there.")
    if out:
        Store(out).at(calibrations.CALIBRATIONS).require_writable()
    from sare_core.pipeline import Detector  # torch: seconds

    scorer = Detector.from_pretrained(detector, work=work, view=view, overrides=set_ or [])
    examiner, store = Examiner(scorer, None), scorer.folder.store
    if check is not None:
        before = calibrations.find_calibration(store, scorer.scoring, calibration)
        if before is None:
            raise ConfigError(f"{store.url}: has no calibration to check. Make one with --reals FOLDER.")
        there, left_out = _scored(check, examiner)
        own = set(before.files())  # they would hide a difference
        new = [each for each in there if each.sha256 not in own]
        left_out += Counter({"of the calibration itself": len(there) - len(new)})
        later, images = calibrations.image_set(_name(check), new, left_out)
        found = calibrations.drift(before, later.logits, later.why_left_out)
        for line in words.of_drift(found, before, later, calibrations.unlike(before.reals, images)):
            console.print(line, soft_wrap=True)
        raise typer.Exit(1 if found.noticed or found.too_many else 0)
    if not out:
        store.at(calibrations.CALIBRATIONS).require_writable()
    sets = [calibrations.image_set(label, *_scored(place, examiner)) for place, label, _, _ in places]
    made = calibrations.calibrate(
        examiner.id.fingerprint, scorer.scoring, sets[0], sets[1] if fakes else None, fpr, miss_rate or fpr
    )
    for line in words.of_calibration(made):
        console.print(line, soft_wrap=True)
    console.print(f"calibration: {calibrations.save_calibration(made, Store(out) if out else store)}", soft_wrap=True)


def _scored(place: str, examiner: Examiner) -> tuple[list[Scored], Counter[str]]:
    """The images that have a score, and how many have none, by reason."""
    wanted, found, left_out = list(sources([place])), list[Scored](), Counter[str]()
    with stop_cleanly(), bar(console, _name(place), len(wanted)) as advance:
        for batch in examined(wanted, examiner):
            for each in batch:
                if each.result.logit is None:
                    left_out[each.result.reasons[0].code] += 1
                    continue
                assert each.image and each.info and each.result.sha256
                found.append(Scored(each.result.sha256, image_id(each.image), each.info, each.result.logit))
            advance(len(batch))
    return found, left_out


def _name(place: str) -> str:
    return shown(Path(place.rstrip("/")).name)


if __name__ == "__main__":
    options.run_command(calibrate)
