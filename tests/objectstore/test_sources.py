"""Source images on s3://: found, read and indexed as on a disk."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from sare_core.errors import ConfigError, ImageError
from sare_core.images.reading import read_bytes
from sare_core.index.indexing import build_index
from sare_core.index.listing import Problem, walk
from sare_core.store.storage import Store
from tests.objectstore.proxy import Fault, Kind, Proxy
from tests.trees import forensynths_tree, genimage_tree, nasty_files

pytestmark = pytest.mark.usefixtures("no_waiting")


def upload(folder: Path, url: str) -> str:
    """Every file below a folder, in one go."""
    store = Store(url)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    store._fs.pipe({f"{store._root}/{name}": data for name, data in files.items()})
    return url


def folder_tree(root: Path) -> Path:
    forensynths_tree(root, per_cell=2, folders=["cyclegan"])
    (root / "cyclegan").rename(root / "test")
    for kind in ("horse", "winter"):
        (root / "test" / kind / "0_real").rename(root / "test" / "real" if kind == "horse" else root / "test" / "more")
        (root / "test" / "fake").mkdir(exist_ok=True)
        (root / "test" / kind / "1_fake").rename(root / "test" / "fake" / kind)
    nasty_files(root / "test" / "real")
    for bad in ("pipe.jpg", "dangling.jpg"):  # no object store has such
        (root / "test" / "real" / bad).unlink()
    (root / "test" / "real" / "notes.txt").write_text("not an image")
    (root / "test" / "fake" / "horse-b").mkdir()  # sorts before "horse/…" as text, after it as a folder
    (root / "test" / "fake" / "horse-b" / ".DS_Store").write_bytes(b"x")
    (root / "test" / "more").rename(root / "test" / "fake" / "horse-b" / "deep")
    return root


def table_tree(root: Path) -> Path:
    genimage_tree(root, per_cell=2, subsets=["biggan"])
    names = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    rows = [f"{name},{int('/ai/' in str(name))},{'test' if 'val' in str(name) else 'train'}" for name in names]
    (root / "images.csv").write_text("\n".join(["path,label,split", *rows]))
    return root


LAYOUTS: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "genimage": ("genimage", lambda root: genimage_tree(root, per_cell=3, subsets=["sdv1.4", "adm"]), ""),
    "forensynths": ("forensynths", lambda root: forensynths_tree(root, folders=["progan", "san", "crn", "imle"]), ""),
    "folder": ("folder", folder_tree, ""),
    "table": ("folder", table_tree, "/images.csv"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_index_is_that_of_a_disk(bucket: str, proxy: Proxy, tmp_path: Path, name: str) -> None:
    layout, make, suffix = LAYOUTS[name]
    local = make(tmp_path / "data")
    url = upload(local, f"{bucket}/data")
    Store(bucket)._fs.touch(f"{url[5:]}/empty folder/")  # a console's folder

    def index(root: str, manifests: str) -> tuple[pl.DataFrame, pl.DataFrame, int]:
        report = build_index("d", layout, root, manifests, shard_size=5, workers=1)
        return report.index.frame(), report.index.shards, report.read

    on_disk, shards, files = index(f"{local}{suffix}", str(tmp_path / "manifests"))
    remote, remote_shards, read = index(f"{url}{suffix}", f"{bucket}/manifests")
    assert on_disk.drop("mtime_ns", "error").equals(remote.drop("mtime_ns", "error"))
    assert on_disk["error"].is_null().equals(remote["error"].is_null())
    assert shards.equals(remote_shards)
    assert read == files > 0
    before: list[Problem] = []
    listed: list[Problem] = []
    assert [folder for folder, _ in walk(str(local), before)] == [folder for folder, _ in walk(url, listed)]
    assert before == listed
    proxy.clear()
    bad = len(remote.filter(pl.col("error").is_not_null()))
    assert index(f"{url}{suffix}", f"{bucket}/manifests")[2] == bad  # what is well and unchanged is not read again
    assert not [path for path in proxy.paths if path.startswith("GET") and path.endswith((".png", ".JPEG"))][bad:]


def test_a_changed_image_is_read_again(bucket: str, tmp_path: Path) -> None:
    local = genimage_tree(tmp_path / "data", per_cell=3, subsets=["adm"])
    url = upload(local, f"{bucket}/data")
    build_index("d", "genimage", url, f"{bucket}/manifests", workers=1)
    first, other = sorted(path for path in local.rglob("*.PNG"))[:2]
    Store(url).write(str(first.relative_to(local)), other.read_bytes() + b"tail")
    Store(url).delete(str(other.relative_to(local)))
    report = build_index("d", "genimage", url, f"{bucket}/manifests", workers=1)
    assert (report.read, report.files) == (1, 11)


def test_an_image_that_is_gone_is_one_images_error(bucket: str) -> None:
    Store(bucket).write("a", b"x")
    assert read_bytes(f"{bucket}/a") == b"x"
    with pytest.raises(ImageError, match=f"{bucket}/b: is gone"):
        read_bytes(f"{bucket}/b")


@pytest.mark.parametrize("kind", ["slow down", "cut answer", "swallow"])
def test_a_passing_fault_fails_no_image(bucket: str, proxy: Proxy, kind: Kind) -> None:
    Store(bucket).write("a", b"xyz")
    proxy.faults = [Fault(kind, "GET", times=5)]
    assert read_bytes(f"{bucket}/a") == b"xyz"
    assert proxy.faults[0].hits == 5


@pytest.mark.parametrize("kind", ["expired", "denied"])
def test_refused_credentials_end_the_run(bucket: str, proxy: Proxy, tmp_path: Path, kind: Kind) -> None:
    """And do not make a failure row of every image that is left."""
    url = upload(genimage_tree(tmp_path / "data", per_cell=3, subsets=["adm"]), f"{bucket}/data")
    proxy.faults = [Fault(kind, "GET", "/data/ADM", times=10_000, after=4)]
    for workers in (1, 2):
        with pytest.raises(ConfigError, match=r"s3://bucket.*(credentials|access denied)"):
            build_index("d", "genimage", url, f"{tmp_path}/manifests{workers}", workers=workers)
        assert not list((tmp_path / f"manifests{workers}").rglob("index.json"))
    proxy.clear()
    report = build_index("d", "genimage", url, f"{tmp_path}/manifests1", workers=1)
    assert report.index.about["errors"] == 0


def test_a_root_that_is_not_there(bucket: str) -> None:
    problems: list[Problem] = []
    for root, words in ((f"{bucket}/none", "no such folder"), ("s3://no-such-bucket-anywhere/x", "no such bucket")):
        with pytest.raises(ConfigError, match=f"{root}: .*{words}"):
            list(walk(root, problems))
