"""The endpoints: images to results as JSON, the page, and what looks after a server."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp

from sare_core.detection.examining import Examined, Examiner
from sare_core.detection.results import Result
from sare_core.serving.guard import LOCAL, Guard
from sare_core.serving.limits import DEFAULT, Limits, Refused
from sare_core.serving.metrics import Metrics
from sare_core.serving.page import Page
from sare_core.serving.queue import Job, Queue
from sare_core.serving.uploads import Uploads

STUCK = 10  # times the seconds for an answer: a batch that takes longer will not end
LATER = 5  # seconds after which a client that was turned away may come back
LINES = "application/x-ndjson"
FAILED = "The server failed at this image. Its log says why."
_SILENT: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}  # of FastAPI's telemetry
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_UPLOAD = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {"type": "object", "required": ["image"], "properties": {"image": _BINARY["schema"]}}
        },
        "application/octet-stream": _BINARY,
    },
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "There is no image in the request, or the form is damaged."},
    408: {"description": "The upload took too long."},
    413: {"description": "The image has too many bytes."},
    503: {"description": "The queue is full, or the server is about to stop; Retry-After says when to try again."},
    504: {"description": "The image could not be examined in time."},
}


class Served:
    """An examiner with all that a server keeps: its queue, its uploads, its counts, its page."""

    def __init__(self, examiner: Examiner, limits: Limits) -> None:
        self.limits, self.metrics = limits, Metrics()
        self.queue, self.uploads = Queue(examiner, limits, self.metrics), Uploads(limits)
        self.page = Page(examiner, limits)

    async def job(self, request: Request) -> Job:
        """The request's image on its way. Raises Refused."""
        try:
            self.queue.require_place()  # before all of it is read
            upload = await self.uploads.read(request)
        except Refused as refused:
            if refused.status != 408:
                await self.uploads.drain(request)
            raise
        assert upload.file is not None
        try:
            job = self.queue.put(upload.file)
        except Refused:
            upload.release()
            raise
        job.answer.add_done_callback(lambda _: upload.release())
        return job

    async def answer(self, job: Job, request: Request) -> Examined:
        """Raises Refused: not in time, or the client is gone; then it need not be examined any more."""
        gone = asyncio.ensure_future(_gone(request))
        try:
            either: list[asyncio.Future[Any]] = [job.answer, gone]
            await asyncio.wait(either, timeout=self.limits.answer, return_when=asyncio.FIRST_COMPLETED)
            if not job.answer.done():
                raise self._too_late() if not gone.done() else Refused(400, "The client went away.")
        finally:
            gone.cancel()
            job.answer.cancel()  # one that is there stays
        return _noted(job.answer.result(), request)

    async def told(self, job: Job, request: Request) -> AsyncIterator[str]:
        """Lines of JSON for the page's script: each stage as it begins, then the result or what went wrong.

        The status was sent before that; the one that it would have been is counted.
        """
        try:
            async with asyncio.timeout(self.limits.answer):
                async for stage in job.entered():
                    yield _line({"stage": stage})
                examined = await job.answer
            yield _line(await asyncio.to_thread(self.page.parts, _noted(examined, request)))
        except TimeoutError:
            request.scope["status"] = 504
            yield _line({"error": self._too_late().why})
        except Exception:
            request.scope["status"] = 500
            yield _line({"error": FAILED})
            raise
        except asyncio.CancelledError:
            request.scope["status"] = 400  # the client went away
            raise
        finally:
            job.answer.cancel()

    def _too_late(self) -> Refused:
        return Refused(504, f"The image could not be examined within {self.limits.answer:g} seconds.", later=True)


def make_app(examiner: Examiner, limits: Limits = DEFAULT, hosts: Sequence[str] = LOCAL) -> tuple[ASGIApp, Queue]:
    """The application, and the queue that has to run empty before it ends. hosts: names that it answers to."""
    served = Served(examiner, limits)
    queue, page, metrics = served.queue, served.page, served.metrics
    app = FastAPI(title="sare", version=page.version, docs_url=None, redoc_url=None, telemetry=_SILENT)

    @app.post(
        "/v1/detect",
        response_model=Result,
        responses=_REFUSALS,
        openapi_extra={"requestBody": _UPLOAD},
        summary="Examine one image",
    )
    async def detect(request: Request, name: str | None = None) -> Response:
        """An image as a form's field or as the body itself; `name` is what the result calls it then.

        A file that is no image is a result too: `no_verdict`, with the reason.
        """
        examined = await served.answer(await served.job(request), request)
        return Response(examined.result.model_dump_json(), media_type="application/json")

    @app.get("/v1/schema", summary="The JSON schema of a result")
    async def schema() -> Response:
        return Response((files("sare_core.detection") / "schema.json").read_bytes(), media_type="application/json")

    @app.get("/", include_in_schema=False)
    async def form() -> HTMLResponse:
        return HTMLResponse(page.empty)

    @app.post("/", include_in_schema=False)
    async def examine(request: Request) -> Response:
        job = await served.job(request)
        if request.headers.get("accept") == LINES:
            return StreamingResponse(served.told(job, request), media_type=LINES)
        examined = await served.answer(job, request)
        return HTMLResponse(await asyncio.to_thread(page.with_result, examined))

    @app.get("/page.css", include_in_schema=False)
    async def style() -> Response:
        return Response(page.style, media_type="text/css")

    @app.get("/page.js", include_in_schema=False)
    async def script() -> Response:
        return Response(page.script, media_type="text/javascript")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page.docs(app.openapi()))

    @app.get("/healthz", summary="Whether the server works; 503 when a batch does not come to its end")
    async def healthy() -> PlainTextResponse:
        stuck = queue.begun and time.monotonic() - queue.begun > STUCK * limits.answer
        return PlainTextResponse("stuck\n", 503) if stuck else PlainTextResponse("ok\n")

    @app.get("/readyz", summary="Whether it takes an image now; 503 when the queue is full or the server is stopping")
    async def ready() -> PlainTextResponse:
        queue.require_place()
        return PlainTextResponse("ok\n")

    @app.get("/metrics", summary="Counts, in Prometheus's format")
    async def counts() -> PlainTextResponse:
        metrics.waiting.set(queue.waiting)
        metrics.held.set(served.uploads.held)
        return PlainTextResponse(metrics.text())

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        again = {"Retry-After": str(LATER)} if error.later else {}
        if request.url.path == "/" and "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(page.with_error(error.why), error.status, again)
        return JSONResponse({"detail": error.why}, error.status, again)

    @app.exception_handler(500)
    async def failed(request: Request, error: Exception) -> Response:
        return JSONResponse({"detail": FAILED}, 500)

    return Guard(app, hosts, metrics), queue


def _noted(examined: Examined, request: Request) -> Examined:
    request.scope["verdict"] = examined.result.verdict  # for the count
    return examined


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _line(event: dict[str, Any]) -> str:
    return json.dumps(event) + "\n"
