"""The image of a request, in memory alone: an upload that is too large, too slow or one too many ends early."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from sare_core.detection.loading import Loaded, of_bytes
from sare_core.serving.limits import Limits, Refused, checked

ENVELOPE = 1 << 16  # bytes of a form besides its file
DRAINED = 10  # times the bytes of an upload, at most
UNNAMED = "upload"  # what an image is called that came without a name

# A line for each odd client would fill disks; what is wrong with its form, it is told itself.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 62  # starlette's own would move a file of more than 1 MB to the disk


class Uploads:
    """All that are in memory. held: their bytes together."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.held = limits, 0

    async def read(self, request: Request) -> "Upload":
        """The request's image. Raises Refused."""
        upload = Upload(self)
        try:
            async with asyncio.timeout(self.limits.upload):
                name, data = await self._parsed(request, upload)
            if not data:
                raise Refused(400, "There is no image in the request.")
            upload.file = checked(await asyncio.to_thread(of_bytes, name, data), self.limits)
        except TimeoutError:
            raise Refused(408, f"The upload took longer than {self.limits.upload:g} seconds.") from None
        except ClientDisconnect:
            raise Refused(400, "The client went away.") from None
        finally:
            if upload.file is None:
                upload.release()
        return upload

    async def drain(self, request: Request) -> None:
        """Read on what will not be used: most clients send all before they look at the answer, and a connection that
        is closed before that loses it. One that asks first (`Expect: 100-continue`) need not send."""
        if "expect" in request.headers:
            return
        read = 0
        with contextlib.suppress(TimeoutError, ClientDisconnect, RuntimeError):  # the last: all of it was read
            async with asyncio.timeout(self.limits.upload):
                async for chunk in request.stream():
                    read += len(chunk)
                    if read > DRAINED * self.limits.body:
                        break

    async def _parsed(self, request: Request, upload: "Upload") -> tuple[str, bytes]:
        length = request.headers.get("content-length", "")
        self._require_small(int(length) if length.isdecimal() else 0)
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            chunks = [chunk async for chunk in self._chunks(request, upload)]
            return request.query_params.get("name") or UNNAMED, b"".join(chunks)
        try:
            form = await _InMemory(request.headers, self._chunks(request, upload), max_files=1, max_fields=8).parse()
        except MultiPartException as error:
            raise Refused(400, f"The form cannot be read: {error.message}") from error
        except UnicodeError as error:  # of its charset, which may be any codec of Python's
            raise Refused(400, "The form cannot be read: its charset does not fit it.") from error
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        return (files[0].filename or UNNAMED, await files[0].read()) if files else (UNNAMED, b"")

    async def _chunks(self, request: Request, upload: "Upload") -> AsyncGenerator[bytes, None]:
        async for chunk in request.stream():
            upload.grow(len(chunk))
            self._require_small(upload.bytes)
            yield chunk

    def _require_small(self, size: int) -> None:
        if size > self.limits.body + ENVELOPE:
            raise Refused(413, f"An image may have {self.limits.body / 1e6:g} MB here.")


class Upload:
    """One of them. bytes: those that it holds until it is released. file: once it is whole."""

    def __init__(self, uploads: Uploads) -> None:
        self.uploads, self.bytes = uploads, 0
        self.file: Loaded | None = None

    def grow(self, size: int) -> None:
        """Raises Refused: there is no room."""
        self.bytes += size
        self.uploads.held += size
        if self.uploads.held > self.uploads.limits.held:
            raise Refused(503, "The server holds as many uploads as it can. Try again soon.", later=True)

    def release(self) -> None:
        """Its bytes are gone, or about to go."""
        self.uploads.held -= self.bytes
        self.bytes = 0
