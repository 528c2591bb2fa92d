"""The commands as a user types them, on an object store: exit codes and what is said."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sare_core.store.storage import Store
from tests.conftest import STANDIN, standin_overrides
from tests.forked import Command, Done
from tests.objectstore.proxy import Fault, Proxy
from tests.objectstore.test_sources import upload
from tests.trees import genimage_tree

Sare = Callable[..., Done]


@pytest.fixture
def sare(bucket: str, tmp_path: Path, standin_models: Path) -> Sare:
    upload(genimage_tree(tmp_path / "tree", per_cell=3, subsets=["sdv1.4"]), f"{bucket}/GenImage")
    settings = ["--dataset", "tree", "--preset", STANDIN]
    settings += [part for override in standin_overrides(standin_models) for part in ("--set", override)]

    def run(command: str, *arguments: str, **environment: str) -> Done:
        more = settings if command in ("caption", "reconstruct", "report") else []
        places = {"SARE_WORK": f"{bucket}/lab/work", "SARE_MANIFESTS": f"{bucket}/lab/manifests", "COLUMNS": "200"}
        return Command([command, *more, *arguments], {**os.environ, **places, **environment}, tmp_path / "said").wait()

    layout = ("--layout", "genimage", "--root", f"{bucket}/GenImage", "--name", "tree", "--workers", "1")
    done = run("index", *layout)
    assert done.returncode == 0, done.stderr
    return run


def test_what_looks_after_results(sare: Sare, bucket: str) -> None:
    assert sare("caption").returncode == 0
    status = sare("status")
    assert (status.returncode, "captions" in status.stdout) == (0, True), status.stderr
    verify = sare("verify")
    assert (verify.returncode, "all as recorded" in verify.stdout) == (0, True), verify.stderr
    work = Store(f"{bucket}/lab/work/tree/captions")
    folder = work.at(work.folders()[0])
    output = next(name for name in folder.names() if name.startswith("00000-"))
    folder.write(output, b"rot")
    verify = sare("verify")
    assert (verify.returncode, output in verify.stdout) == (1, True)
    folder.write("00000-000000000000.parquet", b"left over")
    assert "0 files" in sare("gc", "--delete").stdout, "somebody may be about to name it"
    assert folder.exists("00000-000000000000.parquet")


def test_refusals_end_with_exit_code_2_and_name_the_cure(sare: Sare, proxy: Proxy) -> None:
    missing = sare("caption", SARE_WORK="s3://no-such-bucket-anywhere/work")
    keyless = sare("status", AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    proxy.faults = [Fault("expired", times=10_000)]
    expired = sare("caption")
    for done, words in (
        (missing, "s3://no-such-bucket-anywhere/work"),
        (missing, "there is no such bucket. Create it"),
        (keyless, "AWS_ACCESS_KEY_ID"),
        (expired, "the credentials have expired"),
    ):
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
