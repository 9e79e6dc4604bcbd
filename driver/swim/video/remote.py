"""Files on object stores and web servers: their size and version, and any range of their bytes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

import fsspec
import requests
import urllib3
from fsspec.asyn import AsyncFileSystem, sync
from fsspec.exceptions import FSTimeoutError

from swim.errors import DataError, Reason

WEB = ("http", "https")
STORES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}  # scheme: the package that knows it
_PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)  # temporary errors of a web server
_ATTEMPTS, _PAUSE_S = 3, 0.5
_CHUNK_BYTES = 1 << 20

Result = TypeVar("Result")


@dataclass(frozen=True)
class Stored:
    """What a server says of a file. size: bytes. version: another one for other content, "" where it does not say."""

    size: int
    version: str


def scheme_of(text: str) -> str:
    """That of a URL, in lower case, "" for any other text. Example: "S3://bucket/a.mp4" -> "s3"."""
    scheme, separator, _ = text.partition("://")
    return scheme.lower() if separator and scheme.isalnum() else ""


def is_url(text: str) -> bool:
    """Whether a source is fetched from elsewhere: a web server or an object store."""
    return scheme_of(text) in (*WEB, *STORES)


def is_stored(text: str) -> bool:
    """Whether it lies on an object store."""
    return scheme_of(text) in STORES


def without_secrets(url: str) -> str:
    """A URL for messages: no user, no password, no query, which may be a signature."""
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=netloc, query="", fragment="").geturl() + ("?..." if parts.query else "")


def refuse_credentials(text: str):
    """Raises DataError for a URL with a user or password: it would stand in logs and reports."""
    if is_url(text) and "@" in urlsplit(text).netloc:
        problem = (
            "credentials in a URL; give them in the environment, where s3fs, gcsfs and huggingface_hub look for them"
        )
        raise DataError(f"{without_secrets(text)}: {problem}")


def stat(url: str, limit_s: float) -> Stored:
    """Raises DataError (MISSING, NOT_READ, TIMEOUT) naming the URL."""
    if is_stored(url):
        info = _asked(url, limit_s, lambda store, path, left_s: _call(store, "info", path, left_s))
        names = ("ETag", "etag", "blob_id", "LastModified", "last_modified", "generation", "mtime")
        return Stored(int(info["size"]), str(next((info[name] for name in names if info.get(name)), "")))
    head = _web(url, limit_s, lambda left_s: requests.head(url, timeout=left_s, allow_redirects=True))
    length = head.headers.get("Content-Length")
    if length is None:
        raise DataError(f"{without_secrets(url)}: the server does not tell its size", reason=Reason.UNREADABLE)
    return Stored(int(length), head.headers.get("ETag") or head.headers.get("Last-Modified") or "")


def read_range(url: str, start: int, end: int, limit_s: float) -> bytes:
    """The bytes [start, end). Raises DataError (MISSING, NOT_READ, TIMEOUT, UNREADABLE) naming the URL."""
    if start >= end:
        return b""
    if is_stored(url):
        content = _asked(
            url, limit_s, lambda store, path, left_s: _call(store, "cat_file", path, left_s, start=start, end=end)
        )
    else:
        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        content = _web(url, limit_s, lambda left_s: _ranged(url, headers, left_s))
    if len(content) != end - start:
        problem = f"expected {end - start:,} bytes from {start:,} on, found {len(content):,}"
        raise DataError(f"{without_secrets(url)}: the transfer broke off ({problem})", reason=Reason.NOT_READ)
    return content


def glob(pattern: str, limit_s: float = 60.0) -> list[str]:
    """The URLs on an object store that match, sorted. Raises DataError where none does, and for a web server."""
    if not is_stored(pattern):
        problem = "a web server does not list its files; name them one by one"
        raise DataError(f"{without_secrets(pattern)}: {problem}", reason=Reason.MISSING)
    found = _asked(pattern, limit_s, lambda store, path, left_s: _call(store, "glob", path, left_s))
    if not found:
        raise DataError(f"{without_secrets(pattern)}: no file fits this pattern", reason=Reason.MISSING)
    return sorted(f"{scheme_of(pattern)}://{path}" for path in found)


def download(url: str, file: IO[bytes], limit_s: float, most_bytes: int):
    """Writes what a web server gives for a URL. Raises DataError as `read_range` does, and for more bytes than that."""
    with _web_errors(url), requests.get(url, stream=True, timeout=limit_s) as response:
        response.raise_for_status()
        size = 0
        for chunk in _chunks(response, limit_s):
            size += len(chunk)
            if size > most_bytes:
                problem = f"{without_secrets(url)}: larger than {most_bytes} bytes"
                raise DataError(problem, reason=Reason.UNREADABLE)
            file.write(chunk)


def _chunks(response: requests.Response, limit_s: float) -> Iterator[bytes]:
    """The body as it comes, however little at a time."""
    end = time.monotonic() + limit_s
    while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
        if time.monotonic() > end:
            raise requests.Timeout(f"not there after {limit_s:g} s")
        yield chunk


def _ranged(url: str, headers: dict, left_s: float) -> bytes:
    with requests.get(url, headers=headers, timeout=left_s, stream=True) as response:
        response.raise_for_status()
        if response.status_code != 206:
            problem = "the server does not give parts of files; expected one that answers Range requests"
            raise DataError(f"{without_secrets(url)}: {problem}", reason=Reason.UNREADABLE)
        return b"".join(_chunks(response, left_s))


def _web(url: str, limit_s: float, ask: Callable[[float], Result]) -> Result:
    def once(left_s: float) -> Result:
        with _web_errors(url):
            answer = ask(left_s)
            if isinstance(answer, requests.Response):
                answer.raise_for_status()
            return answer

    return _again(once, limit_s)


@contextmanager
def _web_errors(url: str) -> Iterator[None]:
    """Turns what requests raises into a DataError that names the URL, without its secrets."""

    def failed(error: Exception, reason: Reason, told: str = "{}") -> DataError:
        problem = told.format(str(error).replace(url, without_secrets(url)))
        return DataError(f"{without_secrets(url)}: {problem}", reason=reason)

    try:
        yield
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise failed(error, Reason.TIMEOUT) from None
    except urllib3.exceptions.HTTPError as error:
        raise failed(error, Reason.NOT_READ, "the transfer broke off ({})") from None
    except requests.RequestException as error:
        status = None if error.response is None else error.response.status_code
        passing = isinstance(error, requests.ConnectionError) or status in _PASSING_STATUS
        raise failed(error, Reason.NOT_READ if passing else Reason.MISSING, "cannot be fetched ({})") from None


def _asked(url: str, limit_s: float, ask: Callable[[Any, str, float], Result]) -> Result:
    """What an object store answers; its credentials come from the environment alone."""
    scheme = scheme_of(url)
    refuse_credentials(url)

    def once(left_s: float) -> Result:
        try:
            store = fsspec.filesystem(scheme, **_options(scheme, left_s))
            return ask(store, url.partition("://")[2], left_s)
        except ImportError:
            package = STORES[scheme]
            remedy = "pip install -e 'driver[remote]'" if package == "s3fs" else f"pip install {package}"
            raise DataError(f"{scheme}:// needs {package}: {remedy}", reason=Reason.UNREADABLE) from None
        except FSTimeoutError:
            raise _failed(url, f"not there after {limit_s:g} s", Reason.TIMEOUT) from None
        except FileNotFoundError:
            raise _failed(url, "no such file", Reason.MISSING) from None
        except PermissionError as error:
            problem = f"not permitted ({_first_line(error)}); check the credentials in the environment"
            raise _failed(url, problem, Reason.MISSING) from None
        except DataError:
            raise
        except Exception as error:  # each store and its HTTP library have errors of their own
            raise _failed(url, f"{type(error).__name__}: {_first_line(error)}", Reason.NOT_READ) from None

    return _again(once, limit_s)


def _options(scheme: str, left_s: float) -> dict:
    if scheme != "s3":
        return {}
    once = {"connect_timeout": left_s, "read_timeout": left_s, "retries": {"max_attempts": 1}}
    return {"config_kwargs": once, "use_listings_cache": False}


def _call(store, name: str, path: str, limit_s: float, **arguments):
    """A method of a store, with a time limit where the store can be interrupted."""
    if isinstance(store, AsyncFileSystem):
        return sync(store.loop, getattr(store, f"_{name}"), path, timeout=limit_s, **arguments)
    return getattr(store, name)(path, **arguments)


def _again(once: Callable[[float], Result], limit_s: float) -> Result:
    """`once(seconds left)`, tried again while an error may pass and time is left."""
    end = time.monotonic() + limit_s
    for attempt in range(_ATTEMPTS):
        try:
            return once(max(end - time.monotonic(), 0.001))
        except DataError as error:
            pause_s = _PAUSE_S * 2**attempt
            if error.reason is not Reason.NOT_READ or attempt + 1 == _ATTEMPTS or time.monotonic() + pause_s > end:
                raise
            time.sleep(pause_s)
    raise AssertionError("unreachable")


def _failed(url: str, problem: str, reason: Reason) -> DataError:
    return DataError(f"{without_secrets(url)}: cannot be fetched ({problem})", reason=reason)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
