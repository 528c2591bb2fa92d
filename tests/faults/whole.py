"""What must be so after any fault: the bytes of an undisturbed run, and nothing beside them but what gc may remove."""

from sare_core.engine.audit import folders, integrity_errors
from sare_core.engine.garbage import orphaned_files
from sare_core.engine.manifest import read_index
from tests.pipeline import Pipeline, outputs

SMALL = [
    "reconstruct.longer_side=32",
    "reconstruct.steps=4",
    "train.epochs=2",
    "train.batch_size=4",
    "train.micro_batch_size=2",
    "train.checkpoint_steps=1",
    "train_subsets=null",
]


def check_whole(pipeline: Pipeline, undisturbed: dict[str, bytes]) -> None:
    """The same files with the same bytes; nothing lost, nothing twice; only what gc may remove lies beside them."""
    index = read_index(pipeline.manifests, "tree")
    left = {
        f"tree/{f.stage}/{f.fingerprint}/{name}"
        for f in folders(pipeline.work)
        for name in orphaned_files(f, index, grace=0)
    }
    found = outputs(pipeline.work)
    assert {name: data for name, data in found.items() if name not in left} == undisturbed
    assert [error for folder in folders(pipeline.work) for error in integrity_errors(folder, index)] == []
