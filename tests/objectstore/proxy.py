"""An HTTP proxy before the object store that can be told to misbehave, and that counts what it is asked for."""

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Kind = Literal["slow down", "cut upload", "stall", "lose half", "swallow", "cut answer", "late", "expired", "denied"]
_REFUSALS: dict[Kind, tuple[int, str]] = {
    "slow down": (503, "SlowDown"),
    "expired": (403, "ExpiredToken"),
    "denied": (403, "AccessDenied"),
}


@dataclass
class Fault:
    """What goes wrong with requests of this method whose path holds `part`: so many times, after some that go well.

    slow down, expired, denied: the store's refusals. cut upload: the connection ends in the middle of the body. stall:
    it stays, but nothing more is read of it for `seconds`. lose half: half of the body is stored, and all is said to be
    well. swallow: it is done, but the answer is lost. cut answer: half of it comes. late: it comes after `seconds`.
    """

    kind: Kind
    method: str = ""
    part: str = ""
    times: int = 1
    after: int = 0
    seconds: float = 0.0
    hits: int = 0

    def strikes(self, method: str, path: str) -> bool:
        if not method.startswith(self.method) or self.part not in path:
            return False
        self.after -= 1
        if self.after >= 0 or self.hits >= self.times:
            return False
        self.hits += 1
        return True


class Proxy:
    """Listens on a free port of this machine and hands requests on to `port`."""

    def __init__(self, port: int) -> None:
        self.upstream, self.faults = port, list[Fault]()
        self.requests: Counter[str] = Counter()  # by method
        self.paths: list[str] = []
        self.page = 1000  # names in one answer to a listing
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def clear(self) -> None:
        """No faults any more, and counting starts anew."""
        with self.lock:
            self.faults.clear()
            self.requests.clear()
            self.paths.clear()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.requests[method] += 1
            self.paths.append(f"{method} {path}")
            return next((fault for fault in self.faults if fault.strikes(method, path)), None)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:  # the client was killed
            self.close_connection = True

    def do_GET(self) -> None:
        fault = self.proxy.fault_for(self.command, self.path)
        kind, length = fault.kind if fault else None, int(self.headers.get("Content-Length") or 0)
        if fault and kind in ("cut upload", "stall"):
            self.rfile.read(length // 2)
            time.sleep(fault.seconds)
            self.hang_up()
            return
        body = self.rfile.read(length)
        if kind in _REFUSALS:
            self.refuse(*_REFUSALS[kind])
            return
        if kind == "late":
            assert fault is not None
            time.sleep(fault.seconds)
        status, headers, answer = self.ask(body[: length // 2] if kind == "lose half" else body)
        if kind == "swallow":
            self.hang_up()
            return
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("date", "server", "connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        # The answer to HEAD tells a length and has no body.
        told = dict(headers).get("Content-Length", "0") if self.command == "HEAD" else str(len(answer))
        self.send_header("Content-Length", told)
        self.end_headers()
        self.wfile.write(answer[: len(answer) // 2] if kind == "cut answer" else answer)
        if kind == "cut answer":
            self.wfile.flush()
            self.hang_up()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.upstream, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("expect", "connection")}
        if self.command in ("PUT", "POST"):
            headers["Content-Length"] = str(len(body))
        path = self.path + (f"&max-keys={self.proxy.page}" if "list-type=2" in self.path else "")
        connection.request(self.command, path, body or None, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), data

    def refuse(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>told to say {code}</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(0 if self.command == "HEAD" else len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def hang_up(self) -> None:
        """A reset and not an orderly end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: object) -> None:
        pass
