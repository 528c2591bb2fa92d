"""Does the promise of `sare calibrate` hold on images that it has not seen? After `make demo`:

    sare mini --full
    python -m benchmarks.detect --detector demo

All test images of the whole scale model are scored once. Then 20 times, drawn anew: thresholds from 400 real images,
and how many of 800 other real ones are called likely_ai. Writes benchmarks/detect/false-alarms.md.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy.stats import betabinom

from sare_core.detection.examining import Examiner
from sare_core.detection.results import Thresholds
from sare_core.detection.running import examined
from sare_core.detection.sources import sources
from sare_core.detection.thresholds import above_reals, judge
from sare_core.engine.progress import bar
from sare_core.engine.terminal import console
from sare_core.images.decoding import image_id
from sare_core.pipeline import Detector

SPLITS, CALIBRATED, UNSEEN = 20, 400, 800
RATES = (0.01, 0.05)
OUT = Path(__file__).parent / "false-alarms.md"


def main(
    detector: Annotated[str, typer.Option(help="As for sare detect.")] = "demo",
    images: Annotated[Path, typer.Option(help="The whole scale model, as `sare mini --full` unpacks it.")] = Path(
        "data/miniature"
    ),
    work: Annotated[str, typer.Option(help="Work folder.")] = "work",
) -> None:
    """Measure, print and write down. Exits with 1 where the promise does not hold."""
    examiner = Examiner(Detector.from_pretrained(detector, work=work), None)
    reals = np.array(list(_logits(examiner, sorted(images.glob("*/*/val/nature")), "reals").values()))
    fakes = np.array(list(_logits(examiner, sorted(images.glob("*/*/val/ai")), "fakes").values()))
    tables = [_table(reals, fakes, rate) for rate in RATES]
    head = (
        "# False alarms on unseen real images\n\n"
        f"`python -m benchmarks.detect --detector {detector}` on {datetime.now(UTC):%Y-%m-%d}: {len(reals):,} real and "
        f"{len(fakes):,} generated test images of the whole scale model. {SPLITS} times, thresholds from {CALIBRATED} "
        f"real images drawn by lot, then {UNSEEN} others are judged. The range is what 95 % of such draws give where "
        "the promise holds (beta-binomial).\n"
    )
    text = "\n".join([head, *(lines for lines, _ in tables)])
    OUT.write_text(text)
    console.print(text)
    sys.exit(not all(holds for _, holds in tables))


def _logits(examiner: Examiner, folders: list[Path], title: str) -> dict[str, float]:
    """Of each distinct image, by its pixels."""
    wanted, found = list(sources(map(str, folders))), dict[str, float]()
    with bar(console, title, len(wanted)) as advance:
        for batch in examined(wanted, examiner):
            found |= {
                image_id(each.image): each.result.logit
                for each in batch
                if each.image and each.result.logit is not None
            }
            advance(len(batch))
    return found


def _table(reals: np.ndarray, fakes: np.ndarray, rate: float) -> tuple[str, bool]:
    k = int(rate * (CALIBRATED + 1))
    low, high = (int(count) for count in betabinom(UNSEEN, k, CALIBRATED + 1 - k).ppf([0.025, 0.975]))
    lines = [
        f"## --fpr {rate:g}\n",
        f"| split | threshold (logit) | interval of its rate | false alarms of {UNSEEN} | generated called likely_ai |",
        "|---:|---:|---:|---:|---:|",
    ]
    alarms, caught = [], []
    for split in range(SPLITS):
        drawn = np.random.RandomState(split).permutation(reals)[: CALIBRATED + UNSEEN]
        found = Thresholds(likely_ai=above_reals(drawn[:CALIBRATED].tolist(), rate, "reals"), likely_real=None)
        called = [judge(logit, found)[0] == "likely_ai" for logit in drawn[CALIBRATED:]]
        alarms.append(sum(called))
        caught.append(float(np.mean(fakes > found.likely_ai.logit)))
        interval = "{:.4f} to {:.4f}".format(*found.likely_ai.interval)
        lines.append(f"| {split} | {found.likely_ai.logit:.3f} | {interval} | {alarms[-1]} | {caught[-1]:.3f} |")
    mean, inside = float(np.mean(alarms)) / UNSEEN, sum(low <= count <= high for count in alarms)
    error = float(np.std(alarms, ddof=1)) / UNSEEN / SPLITS**0.5
    lines.append(
        f"\nPromised: {rate:g} at most, on average. Measured: {mean:.4f} ± {1.96 * error:.4f} (mean over splits, which "
        f"share images). {inside} of {SPLITS} splits have {low} to {high} false alarms. Of the generated images "
        f"{np.mean(caught):.3f} are called likely_ai.\n"
    )
    return "\n".join(lines), mean - 1.96 * error <= rate and inside >= SPLITS - 3


if __name__ == "__main__":
    typer.run(main)
