"""What holds for every request: which names the server goes by, who may ask, and what a browser may do with the answer.

A page of another site can make a visitor's browser ask a server on the visitor's own machine, so the server answers to
its own names alone (a foreign name can be made to lead here) and takes uploads from its own page or from no page.
"""

from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sare_core.serving.metrics import Metrics

LOCAL = ("localhost", "127.0.0.1", "[::1]")
PROBES = ("/healthz", "/readyz", "/metrics")  # asked by address, and they tell nothing of an image
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers say of a form's own site that it is null
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Around the whole application. Counts uploads by the status and the verdict (`scope["verdict"]`) they came to.

    `scope["status"]`: a status to be counted in place of the one that was sent before it could be known.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], metrics: Metrics) -> None:
        self.app, self.hosts, self.metrics = app, {name_of(host) for host in hosts}, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status = 0

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await (self._refusal(scope) or self.app)(scope, receive, guarded)
        finally:
            if scope["method"] == "POST":
                # Where nothing was sent, uvicorn says 500.
                self.metrics.requests.labels(scope.get("status") or status or 500, scope.get("verdict", "")).inc()

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if scope["path"] not in PROBES and name_of(host) not in self.hosts:
            return JSONResponse({"detail": "The server does not go by this name (sare serve --allow-host)."}, 400)
        if (origin := headers.get("origin")) and origin.partition("://")[2].lower() != host.lower():
            return JSONResponse({"detail": "A page of another site may not ask this server."}, 403)
        return None


def name_of(host: str) -> str:
    """In lower case, without a port and the dot of the root; an IPv6 address in brackets."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    if host.count(":") > 1:
        return f"[{host.lower()}]"
    return host.partition(":")[0].lower().removesuffix(".")
