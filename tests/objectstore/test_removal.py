"""gc, the gathering of records and `sare rm` on an object store."""

from pathlib import Path

from sare_core.engine.folders import Folder
from sare_core.engine.garbage import orphaned_files, remove_orphans, replaced_indexes
from sare_core.engine.manifest import write_index
from sare_core.engine.record import Output
from sare_core.engine.removal import find, remove
from sare_core.store.storage import Store
from tests.builders import index_frame, index_row, shard_record


def test_what_nothing_names_goes_and_the_rest_stays(bucket: str, tmp_path: Path) -> None:
    index = write_index(f"{bucket}/manifests", "it", index_frame(*(index_row(n, n) for n in range(3))), {})
    folder = Folder(f"{bucket}/work", "it", "captions", {"stage": "captions"}, None)
    beside = Folder(f"{bucket}/work", "it", "captions", {"stage": "captions", "view": "blur"}, None)
    for some in (folder, beside):
        some.describe()
        for shard in range(3):
            output = Output(name=f"{shard:05d}-0123456789ab.tar", bytes=3, sha256="5" * 64)
            some.store.write(output.name, b"abc")
            some.commit(shard_record(some, shard, {"index": index.digests[shard]}, output=output))
            assert some.ledger.compact(index.digests)
    assert folder.store.names("claims") == []
    old = [name for name in folder.store.names() if name.startswith("records-") and name != folder.ledger.file()]
    assert len(old) == 2
    folder.store.write("00001-ba9876543210.tar", b"x")
    orphans = ["00001-ba9876543210.tar", *old]
    assert list(orphaned_files(folder, index)) == []
    assert list(orphaned_files(folder, index, grace=0)) == orphans
    assert remove_orphans(folder, index, orphans, grace=0)
    assert (
        list(orphaned_files(folder, index, grace=0)) == list(replaced_indexes(Store(f"{bucket}/manifests"), "it")) == []
    )
    assert {state.kind for state in folder.states(index.digests).values()} == {"done"}

    remove(find(folder.store.url, "unused"))
    assert folder.store.sizes() == {}
    assert Store(f"{bucket}/work").folders("it/captions") == [beside.fingerprint]
    assert {state.kind for state in beside.states(index.digests).values()} == {"done"}
