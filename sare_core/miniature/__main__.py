"""Train and pack the miniature world: python -m sare_core.miniature --articles FOLDER."""

import argparse
import shutil
import sys
from pathlib import Path

from sare_core.errors import ConfigError, SareError, Stopped
from sare_core.miniature.pack import pack
from sare_core.miniature.world import RECIPES, World, build, run_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description="Run every recipe of the miniature world, and pack what ships.")
    parser.add_argument("--work", default="work/mini-world", help="where trainings lie; a second run goes on there")
    parser.add_argument("--articles", required=True, help="Fashion-MNIST's folder of four .gz files")
    parser.add_argument("--out", default="sare_core/miniature/shipped", help="where models and images are packed")
    parser.add_argument("--jobs", type=int, default=2, help="recipes at a time, of one thread each")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the training: 0.01 is a rehearsal")
    parser.add_argument("--only", choices=list(RECIPES), help="one recipe, and nothing packed")
    parser.add_argument("--premise", type=Path, help="only measure the premise, and write its table to this folder")
    chosen = parser.parse_args()
    if chosen.jobs < 1:
        parser.error(f"--jobs {chosen.jobs}: at least 1.")
    world = World(chosen.work, chosen.articles, chosen.scale)
    try:
        if chosen.premise:
            import torch

            from sare_core.miniature.tables import write_premise

            torch.set_num_threads(1)
            write_premise(world, chosen.premise)
            shutil.copy(
                chosen.premise / "premise.csv", Path(chosen.out, "premise.csv")
            )  # `sare mini` puts it beside the images
        elif chosen.only:
            run_recipe(world, chosen.only)
        else:
            build(world, chosen.jobs)
            pack(world, Path(chosen.out))
    except ConfigError as error:
        parser.error(str(error))
    except SareError as error:
        sys.exit(str(error))
    except Stopped as stop:
        print(f"{stop}; the same command goes on from there.", file=sys.stderr)
        sys.exit(128 + stop.signum)


if __name__ == "__main__":
    main()
