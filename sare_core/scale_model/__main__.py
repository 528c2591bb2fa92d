"""Train a recipe of the scale model, or measure its premise: python -m sare_core.scale_model RECIPE | premise."""

import argparse
import sys
from pathlib import Path

from sare_core.errors import ConfigError, SareError
from sare_core.scale_model.world import RECIPES, World


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a part of the scale model's second edition, or measure it.")
    parser.add_argument("what", choices=[*RECIPES, "premise"], help="a recipe, with all that it needs; or the table")
    parser.add_argument("--work", default="work/scale-model", help="where trainings lie; a second run goes on there")
    parser.add_argument("--articles", required=True, help="Fashion-MNIST's folder of four .gz files")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the training: 0.01 is a rehearsal")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/scale-model"), help="where premise writes")
    parser.add_argument("--each", type=int, default=400, help="photographs, and images of a generator, to measure")
    chosen = parser.parse_args()
    import torch

    torch.set_num_threads(1)  # or the number of cores would show in the weights
    world = World(chosen.work, chosen.articles, chosen.scale)
    try:
        if chosen.what == "premise":
            from sare_core.scale_model.tables import write_premise

            write_premise(world, chosen.out, chosen.each)
        else:
            RECIPES[chosen.what](world)
    except ConfigError as error:
        parser.error(str(error))
    except SareError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
