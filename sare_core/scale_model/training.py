"""Trainings that are kept: what has been trained once need not be trained again.

The weights of a finished training are kept in half precision, as they ship, and whatever is trained on top of them
reads these. `trained/` holds those that are part of the sources; others lie in the work folder.
"""

from pathlib import Path

from safetensors.torch import load_file, save_file

from sare_core.miniature.fitting import Losses, Part
from sare_core.miniature.fitting import fit as train

TRAINED = Path(__file__).parent / "trained"


def fit(folder: Path, parts: dict[str, Part], steps: int, losses: Losses, seed: int, warmup: int = 50) -> None:
    """`miniature.fitting.fit`, but for weights that are kept: they are loaded. The networks are left in eval mode."""
    kept = {name: TRAINED / f"{folder.name}.{name}.safetensors" for name in parts}
    if not all(file.is_file() for file in kept.values()):
        kept = {name: folder / file.name for name, file in kept.items()}
    if not all(file.is_file() for file in kept.values()):
        train(folder, parts, steps, losses, seed, warmup)
        for name, file in kept.items():
            state = parts[name].network.state_dict()
            half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
            save_file({key: value.contiguous() for key, value in half.items()}, file.with_suffix(".partial"))
            file.with_suffix(".partial").replace(file)
    for name, file in kept.items():
        parts[name].network.load_state_dict(load_file(file))
        parts[name].network.requires_grad_(False).eval()
