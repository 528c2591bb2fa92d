"""Object stores through fsspec: how a URL is opened, what is tried again and for how long, and what errors mean.

Nothing else knows of a store's package. The packages of the stores raise what they like; here it becomes one of three:
a FileNotFoundError, a ConfigError that the user can fix, or, after minutes of trying, a TransientError.
"""

import errno
import logging
import os
import socket
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import fsspec.asyn
import stamina

from sare_core.errors import ConfigError, SareError, TransientError

T = TypeVar("T")

log = logging.getLogger("sare")
stamina.instrumentation.set_on_retry_hooks([])  # a raw line for every try; what a user should know, `_tell` says

# What will not pass by waiting. Any other OSError (a stale NFS handle, a cut connection) is worth another try.
LASTING = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
LASTING |= {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}  # something else has the name
_LASTING_KINDS = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)

PATIENCE = 180.0  # seconds; "slow down" may last a minute, and a busy store answers late rather than never
TELL_AFTER = 10.0  # seconds of trying again in silence
_ATTEMPTS: dict[str, Any] = {
    "attempts": 20,
    "timeout": PATIENCE,
    "wait_initial": 0.5,
    "wait_max": 20.0,
    "wait_jitter": 2.0,
}

# One request is tried a few times by s3fs, so that a listing of a hundred pages survives a busy store; all else is
# `with_retries`'s. botocore's own attempts on top of both would make minutes into hours.
_REQUEST_ATTEMPTS = 3
_S3: dict[str, Any] = {
    "config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"total_max_attempts": 1}},
    "max_concurrency": 1,  # parts of one file at once: 50 MB of memory each, and else a HEAD before every read
}

# Errors of the stores' packages that are no OSError, by the names of their classes: few of the packages are installed.
# A connection that is cut in the midst of a request is an EndpointConnectionError too.
_UNREACHED = {"EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError", "SSLError"}
_UNREACHED |= {"ClientConnectorError", "ConnectionTimeoutError"}  # aiohttp's
_NO_SUCH_HOST = {socket.EAI_NONAME, socket.EAI_NODATA}
_CUT = {"HTTPClientError", "IncompleteReadError", "ResponseParserError", "ClientPayloadError", "ClientConnectionError"}
_SPOILT = {"BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentSHA256Mismatch"}  # 400, but worth another try
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken"}
_told = 0.0  # when the user last heard that something is tried again

_REPOSITORIES = ("botocore", "aiobotocore", "aiohttp", "s3fs", "gcsfs", "google", "azure", "adlfs")


def _web_options() -> dict[str, Any]:
    from aiohttp import ClientTimeout  # whoever has no use for it need not have it

    return {"client_kwargs": {"timeout": ClientTimeout(total=120, sock_connect=10, sock_read=30)}}


_OPTIONS = {"s3": lambda: _S3, "s3a": lambda: _S3, "http": _web_options, "https": _web_options}


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL or path, and the place in it. Raises ConfigError: none such, or its package lacks."""
    if "\0" in url:
        raise ConfigError(f"{url!r}: no path contains a null character.")
    if "://" not in url and not url.startswith("~"):
        url = str(Path.cwd() / url)  # the current folder may change
    return _filesystem(url, os.getpid())  # a connection does not survive a fork


@lru_cache(maxsize=4096)
def _filesystem(url: str, _: int) -> tuple[fsspec.AbstractFileSystem, str]:
    protocol = url.partition("://")[0] if "://" in url else "file"
    try:
        options = {} if protocol == "file" else {"use_listings_cache": False, **_OPTIONS.get(protocol, dict)()}
        fs, place = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:  # its text names the package
        cure = " Run: pip install 'sare[s3]'" if protocol in ("s3", "s3a") else ""
        raise ConfigError(f"{url}: cannot be opened: {error}.{cure}") from error
    except (ValueError, TypeError) as error:  # TypeError: the store needs more than a URL of this form says
        raise ConfigError(f"{url}: cannot be opened: {error}.") from error
    except OSError as error:  # some connect at once
        raise ConfigError(f"{url}: not reachable ({_said(error)}).") from error
    if hasattr(fs, "retries"):
        fs.retries = _REQUEST_ATTEMPTS
    return fs, place


def listing(fs: fsspec.AbstractFileSystem, place: str) -> list[dict[str, Any]]:
    """What lies directly in a folder, as it is now. Empty when there is no such folder."""
    if hasattr(fs, "_lsdir"):
        # s3fs's own `ls` of an empty folder lists the folder above it, which may hold 100,000 names.
        return fsspec.asyn.sync(fs.loop, fs._lsdir, place, refresh=True)
    try:
        return list(fs.ls(place, detail=True))
    except FileNotFoundError:
        return []


def with_retries(url: str, call: Callable[[], T], patience: float = PATIENCE) -> T:
    """What `call` returns, tried again while that helps, for `patience` seconds. It must bear being called twice.

    Raises FileNotFoundError and the like as they are. ConfigError: no bucket, no or expired credentials, no right,
    nothing at that address. TransientError: the patience was not enough.
    """
    end = time.monotonic() + patience

    def passing(error: Exception) -> bool:
        if not is_retryable(error):
            return False
        _tell(url, error, end - patience, end)
        return True

    try:
        for attempt in stamina.retry_context(on=passing, **_ATTEMPTS | {"timeout": patience}):
            with attempt:
                return call()
    except Exception as error:  # of any package; it goes on as it is, or as what it means
        if (better := explained(url, error, patience)) is error:
            raise
        raise better from error
    raise AssertionError  # the loop returns or raises


def _tell(url: str, error: Exception, begun: float, end: float) -> None:
    """Now and then, however many threads wait; not after the last attempt, which may have lasted beyond the end."""
    global _told
    now = time.monotonic()
    if now - max(begun, _told) > TELL_AFTER and now < end:
        _told = now
        log.warning("%s: %s. Trying again for up to %.0f seconds.", url, _said(error), max(end - now, 1))


def is_retryable(error: Exception) -> bool:
    """Whether another try may succeed where this one failed."""
    if (status := status_of(error)) is not None:
        return status >= 500 or status in (408, 409, 429) or refused(error) in _SPOILT
    if isinstance(error, OSError):
        return error.errno not in LASTING | _NO_SUCH_HOST and not isinstance(error, _LASTING_KINDS)
    return bool(_names(error) & (_CUT | _UNREACHED))


def is_unreached(error: Exception) -> bool:
    """Whether nobody answered at all."""
    return bool(_names(error) & _UNREACHED)


def explained(url: str, error: Exception, patience: float = PATIENCE) -> Exception:
    """An error of a store as one of ours where the user can do something about it; else itself."""
    code, said = refused(error), _said(error)
    ours = isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _REPOSITORIES
    if isinstance(error, SareError) or not ours or _of_this_machine(error):
        return error
    if code == "NoSuchBucket":
        return ConfigError(f"{url}: there is no such bucket. Create it, or correct the name.")
    if isinstance(error, _LASTING_KINDS) and not isinstance(error, PermissionError):
        return error
    if is_unreached(error):
        also = "" if url.startswith("http") else " and AWS_ENDPOINT_URL, if it is set"
        return ConfigError(f"{url}: not reachable ({said}). Check the network{also}.")
    if code in _EXPIRED:
        return ConfigError(f"{url}: the credentials have expired ({said}). Renew them and run the same command again.")
    if isinstance(error, PermissionError) or status_of(error) in (401, 403):
        return ConfigError(
            f"{url}: access denied ({said}). The credentials lack the permission, are wrong or have expired: fix "
            "that and run the same command again."
        )
    if is_retryable(error):
        return TransientError(
            f"{url}: still fails after {patience:.0f} seconds ({said}). "
            "Run the same command again later: it goes on where it was."
        )
    if "Credential" in type(error).__name__ or "Token" in type(error).__name__:
        return ConfigError(f"{url}: {said}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.")
    return ConfigError(f"{url}: refused ({said}).")


def _of_this_machine(error: Exception) -> bool:
    """A full disk, say, where a file was to be fetched to."""
    return isinstance(error, OSError) and error.errno in LASTING and not _response(error)


def _response(error: BaseException) -> dict[str, Any]:
    for candidate in (error, error.__cause__):  # s3fs turns botocore's errors into OSErrors
        if isinstance(response := getattr(candidate, "response", None), dict):
            return response
    return {}


def refused(error: BaseException) -> str:
    """The store's own word for why it refused a request: NoSuchBucket, PreconditionFailed …; empty when unknown."""
    return str(_response(error).get("Error", {}).get("Code", ""))


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error, where there is one."""
    status = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    for name in ("status", "status_code", "code"):  # aiohttp, azure, gcsfs
        status = status if status is not None else getattr(error, name, None)
    return int(status) if str(status).isdigit() else None


def _names(error: Exception) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _said(error: Exception) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
