"""Asking any OpenAI-compatible model: concurrent, with back-off, within a budget, never twice for the same question.

The key comes from OPENAI_API_KEY alone. It is handed to the client and to nothing else: no log, file or message holds it.
"""

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import openai
import tenacity

KEY_VARIABLE = "OPENAI_API_KEY"
CHARACTERS_PER_TOKEN = 4  # a rule of thumb for estimates; bills count real tokens
IMAGE_TOKENS = 255  # of a picture of at most 512 x 512 pixels, by OpenAI's tiles
# US dollars per million tokens (input, output), list prices of 2025 for the judges that papers name.
KNOWN_PRICES = {"gpt-4o-2024-11-20": (2.5, 10.0), "gpt-4o-2024-08-06": (2.5, 10.0), "gpt-4o-mini": (0.15, 0.6)}

Task = TypeVar("Task")
Result = TypeVar("Result")


class AskFailed(Exception):
    """One question has no answer after every attempt; `str(error)` says why. The others go on."""


class ServiceRefuses(Exception):
    """The service will answer nothing more: wrong key, no permission, no such model, quota or budget used up."""


@dataclass(frozen=True)
class Endpoint:
    """Which model answers, and how it is asked.

    base_url: of the API, such as http://localhost:8000/v1; None is OpenAI's. timeout_s: of one request. concurrency:
    requests at a time. attempts: of one question, with exponential back-off from `backoff_s` and jitter. prices: US
    dollars per million input and output tokens, None where unknown. max_requests, max_usd: limits of one run.
    """

    model: str
    base_url: str | None = None
    temperature: float = 0.0
    max_tokens: int = 512
    timeout_s: float = 120.0
    concurrency: int = 8
    attempts: int = 6
    backoff_s: float = 1.0
    prices: tuple[float, float] | None = None
    max_requests: int | None = None
    max_usd: float | None = None

    def __post_init__(self):
        if self.prices is None:
            object.__setattr__(self, "prices", KNOWN_PRICES.get(self.model))
        if self.max_usd is not None and self.prices is None:
            raise ValueError(f"max_usd needs the prices of {self.model}; give them in US dollars per million tokens")

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """US dollars, None where the model's prices are unknown."""
        if self.prices is None:
            return None
        return (prompt_tokens * self.prices[0] + completion_tokens * self.prices[1]) / 1e6


@dataclass(frozen=True)
class Reply:
    """text: as the model wrote it. cached: it had been paid for before."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    cached: bool


class ReplyCache:
    """Replies by the content of their question, in one SQLite file; a reply that was stored survives any kill."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(self.path, check_same_thread=False, timeout=60, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, text TEXT NOT NULL, prompt_tokens INTEGER, "
                "completion_tokens INTEGER, model TEXT, created TEXT)"
            )
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path}: not a cache of replies ({error}); move it away") from None

    def get(self, key: str) -> Reply | None:
        query = "SELECT text, prompt_tokens, completion_tokens FROM replies WHERE key = ?"
        with self._lock:
            row = self._database.execute(query, (key,)).fetchone()
        return None if row is None else Reply(*row, cached=True)

    def put(self, key: str, reply: Reply, model: str):
        row = (key, reply.text, reply.prompt_tokens, reply.completion_tokens, model, datetime.now(UTC).isoformat())
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?)", row)


class Asker:
    """Asks one endpoint. Safe to use from many threads.

    requests, prompt_tokens, completion_tokens: what this run has paid for; cached replies do not count.
    """

    def __init__(self, endpoint: Endpoint, cache: ReplyCache):
        key = os.environ.get(KEY_VARIABLE)
        if not key and endpoint.base_url is None:
            raise ValueError(f"{KEY_VARIABLE} is not set; export it, or give base_url for a server that needs no key")
        self.endpoint = endpoint
        self.cache = cache
        self.requests = self.prompt_tokens = self.completion_tokens = 0
        self._client = openai.OpenAI(
            api_key=key or "none", base_url=endpoint.base_url, timeout=endpoint.timeout_s, max_retries=0
        )
        self._lock = threading.Lock()
        self._in_flight: dict[str, threading.Lock] = {}
        self._refusal: ServiceRefuses | None = None
        self._takes_schema = True

    @property
    def usd(self) -> float | None:
        return self.endpoint.usd(self.prompt_tokens, self.completion_tokens)

    def ask(self, messages: list[dict], schema: dict | None = None) -> Reply:
        """The reply to a chat; `schema`, a JSON schema, asks for structured output where the server knows it.

        The same question is sent once, ever: later calls, other threads and later runs get the stored reply.
        Raises AskFailed for this question alone, ServiceRefuses when no question will be answered any more.
        """
        key = self._key(messages, schema)
        with self._lock:
            in_flight = self._in_flight.setdefault(key, threading.Lock())
        with in_flight:
            found = self.cache.get(key)
            if found is None:
                found = self._send(messages, schema)
                self.cache.put(key, found, self.endpoint.model)
            return found

    def _key(self, messages: list[dict], schema: dict | None) -> str:
        endpoint = self.endpoint
        question = [endpoint.model, endpoint.base_url, endpoint.temperature, endpoint.max_tokens, messages, schema]
        return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()

    def _send(self, messages: list[dict], schema: dict | None) -> Reply:
        endpoint = self.endpoint
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(endpoint.attempts),
            wait=_Backoff(endpoint.backoff_s),
            retry=tenacity.retry_if_exception(_is_transient),
            reraise=True,
        )
        try:
            reply = retrying(self._send_once, messages, schema)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise self._refuse(
                f"HTTP {error.status_code}: {_short(error)}; check {KEY_VARIABLE}, model and base_url"
            ) from None
        except openai.RateLimitError as error:
            if _is_quota(error):
                raise self._refuse(f"the quota is used up: {_short(error)}") from None
            raise AskFailed(f"too many requests, {endpoint.attempts} attempts: {_short(error)}") from None
        except openai.APITimeoutError:
            raise AskFailed(f"no answer within {endpoint.timeout_s} s, {endpoint.attempts} attempts") from None
        except (openai.OpenAIError, _EmptyReply, ValueError) as error:
            raise AskFailed(f"{type(error).__name__}: {_short(error)}") from None
        return reply

    def _send_once(self, messages: list[dict], schema: dict | None) -> Reply:
        self._claim()
        arguments: dict[str, Any] = {}
        if schema is not None and self._takes_schema:
            json_schema = {"name": "reply", "schema": schema, "strict": True}
            arguments["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        endpoint = self.endpoint
        try:
            answer = self._client.chat.completions.create(
                model=endpoint.model,
                messages=messages,
                temperature=endpoint.temperature,
                max_tokens=endpoint.max_tokens,
                **arguments,
            )
        except openai.BadRequestError as error:
            if arguments and "response_format" in str(error):  # an older server: the prompt asks for JSON too
                self._takes_schema = False
                return self._send_once(messages, schema)
            raise
        choices = getattr(answer, "choices", None)
        text = choices[0].message.content if choices else None
        usage = getattr(answer, "usage", None)
        prompt_tokens = usage.prompt_tokens if usage else estimate_tokens(messages)
        completion_tokens = usage.completion_tokens if usage else len(text or "") // CHARACTERS_PER_TOKEN
        with self._lock:
            self.prompt_tokens += prompt_tokens
            self.completion_tokens += completion_tokens
        if not text or not text.strip():
            raise _EmptyReply("the reply is empty")
        return Reply(text, prompt_tokens, completion_tokens, cached=False)

    def _claim(self):
        """Counts a request, unless the service or the budget is at its end."""
        with self._lock:
            if self._refusal is not None:
                raise self._refusal
            endpoint, spent = self.endpoint, self.usd
            if endpoint.max_requests is not None and self.requests >= endpoint.max_requests:
                raise self._refuse(f"max_requests = {endpoint.max_requests} reached")
            if endpoint.max_usd is not None and spent >= endpoint.max_usd:
                raise self._refuse(f"max_usd = {endpoint.max_usd} reached ({spent:.2f} US dollars spent)")
            self.requests += 1

    def _refuse(self, why: str) -> ServiceRefuses:
        self._refusal = ServiceRefuses(why)
        return self._refusal


class _EmptyReply(Exception):
    pass


class _Backoff(tenacity.wait.wait_base):
    """What Retry-After asks for, else exponential with full jitter, 60 s at most."""

    def __init__(self, first_s: float):
        self.exponential = tenacity.wait_random_exponential(multiplier=first_s, max=60)

    def __call__(self, retry_state) -> float:
        response = getattr(retry_state.outcome.exception(), "response", None)
        asked = response.headers.get("retry-after") if response is not None else None
        try:
            return min(float(asked), 60.0)
        except (TypeError, ValueError):  # absent, or a date
            return self.exponential(retry_state)


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, openai.RateLimitError):
        return not _is_quota(error)
    if isinstance(error, openai.APIStatusError):
        return error.status_code >= 500 or error.status_code in (408, 409)
    # A cut connection, a time-out, a body that is no JSON, an empty reply.
    return isinstance(error, (openai.APIConnectionError, openai.APIResponseValidationError, _EmptyReply, ValueError))


def _is_quota(error: openai.RateLimitError) -> bool:
    return "insufficient_quota" in (error.code, error.type) or "insufficient_quota" in str(error)


def _short(error: Exception) -> str:
    """A message for people, without what the client may have been configured with."""
    text = " ".join(str(error).split())
    key = os.environ.get(KEY_VARIABLE)
    return (text.replace(key, "***") if key else text)[:200]


def estimate_tokens(messages: Iterable[dict]) -> int:
    """About how many tokens the messages have: their text, and IMAGE_TOKENS for each picture."""
    contents = [message["content"] for message in messages]
    parts = [part for content in contents for part in (content if isinstance(content, list) else [content])]
    texts = [part if isinstance(part, str) else part.get("text", "") for part in parts]
    images = sum(isinstance(part, dict) and part.get("type") == "image_url" for part in parts)
    return sum(map(len, texts)) // CHARACTERS_PER_TOKEN + images * IMAGE_TOKENS


def run_concurrently(
    tasks: Iterable[Task], function: Callable[[Task], Result], concurrency: int
) -> Iterator[tuple[Task, Result]]:
    """(task, function(task)) as they get ready, `concurrency` at a time, never more than twice as many waiting.

    When a call raises, no new one starts, what those under way give comes too, and then the error goes on.
    """
    waiting: dict[Future, Task] = {}
    pool = ThreadPoolExecutor(concurrency)
    try:
        for task in tasks:
            waiting[pool.submit(function, task)] = task
            if len(waiting) >= 2 * concurrency:
                yield from _collect(waiting)
        while waiting:
            yield from _collect(waiting)
    except Exception:
        pool.shutdown(cancel_futures=True)
        for future, task in waiting.items():
            if not future.cancelled() and future.exception() is None:
                yield task, future.result()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _collect(waiting: dict[Future, Task]) -> Iterator[tuple[Task, Any]]:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        task = waiting.pop(future)
        yield task, future.result()
