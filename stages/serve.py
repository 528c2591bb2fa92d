"""Verdicts over HTTP: a page for people, an endpoint for programs (sare_core/serving). Needs `pip install 'sare[web]'`.

    sare serve --detector DETECTOR                       # http://127.0.0.1:8000, for this machine alone
    sare serve --detector DETECTOR --host 0.0.0.0 --allow-host sare.example.org
    curl --form image=@photo.jpg http://127.0.0.1:8000/v1/detect

SIGTERM ends it when what waits is answered. docs/serve.md has the endpoints, the limits and what it counts.
"""

from typing import Annotated

import typer
from PIL import Image

from sare_core.detection.calibration import find_calibration
from sare_core.detection.examining import DRAWS, ENCODINGS, NO_CHECKS, Checks, Examiner
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError, needs_extra
from stages import options


def serve(
    detector: options.Detector = None,
    calibration: Annotated[
        str | None, typer.Option(callback=options.filled, help="Its digest or file. Default: the detector's latest.")
    ] = None,
    host: Annotated[str, typer.Option(callback=options.filled, help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name or address by which others reach it; may be given several times.")
    ] = None,
    max_mb: Annotated[float, typer.Option(callback=options.finite, min=0.1, help="Of an upload.")] = 20,
    max_megapixels: Annotated[float, typer.Option(callback=options.finite, min=0.1, help="Of an image.")] = 50,
    max_waiting: Annotated[int, typer.Option(min=1, help="Images that may wait; more are turned away.")] = 256,
    timeout: Annotated[float, typer.Option(callback=options.finite, min=1, help="Seconds for an answer.")] = 60,
    checks: Annotated[
        bool, typer.Option(help="Also score each image encoded anew and under other noise: five times the work.")
    ] = True,
    view: options.View = None,
    set_: options.Set = None,
    work: options.Work = "work",
) -> None:
    """Serve a page and an endpoint that examine images, until it is stopped."""
    if detector is None:
        raise ConfigError("name a detector: sare serve --detector DETECTOR")
    with needs_extra("web"):
        from sare_core.serving.app import make_app
        from sare_core.serving.guard import LOCAL, name_of
        from sare_core.serving.limits import Limits
        from sare_core.serving.server import Server, bound
    for name in allow_host or []:
        if not name or "/" in name:
            raise ConfigError(f"--allow-host {name}: write a name or an address alone, as sare.example.org.")
    socket = bound(host, port)  # before the models are loaded, which takes long
    from sare_core.pipeline import Detector  # torch: seconds

    scorer = Detector.from_pretrained(detector, work=work, view=view, overrides=set_ or [])
    found = find_calibration(scorer.folder.store, scorer.scoring, calibration)
    examiner = Examiner(scorer, found, Checks(ENCODINGS, DRAWS) if checks else NO_CHECKS)
    scorer.explain([Image.linear_gradient("L").convert("RGB")])  # so that the first request finds all models loaded
    limits = Limits(int(max_mb * 1e6), pixels=int(max_megapixels * 1e6), waiting=max_waiting, answer=timeout)
    app, queue = make_app(examiner, limits, [*LOCAL, host, *(allow_host or [])])
    where = f"http://{name_of(host)}:{socket.getsockname()[1]} (Ctrl-C ends it)"
    Server(app, queue, ready=lambda: console.print(where, soft_wrap=True)).run([socket])


if __name__ == "__main__":
    options.run_command(serve)
