"""Asking any OpenAI-compatible model: with back-off, within a budget and a time, never twice for the same question.

The key comes from OPENAI_API_KEY alone. It is handed to the client and to nothing else: no log, file or message holds it.
"""

import asyncio
import hashlib
import json
import math
import os
import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import openai
import tenacity

from swim.replies import BadReply, credit_is_used_up, read_completion, words_of
from swim.reply_cache import Reply, ReplyCache

KEY_VARIABLE = "OPENAI_API_KEY"
CHARACTERS_PER_TOKEN = 4  # a rule of thumb for estimates; bills count real tokens
IMAGE_TOKENS = 255  # of a picture of at most 512 x 512 pixels, by OpenAI's tiles
# US dollars per million tokens (input, output), list prices of 2025 for the judges that papers name.
KNOWN_PRICES = {"gpt-4o-2024-11-20": (2.5, 10.0), "gpt-4o-2024-08-06": (2.5, 10.0), "gpt-4o-mini": (0.15, 0.6)}

_LONGEST_WAIT_S = 60.0
# What a server may not take -> how it is asked instead, in words for a report.
_ADAPTATIONS = {
    "max_tokens": "max_completion_tokens instead of max_tokens",
    "temperature": "no temperature: the server's default",
    "response_format": "no response_format: the prompt asks for JSON",
}
_SCHEMA_WORDS = (
    "response_format",
    "response format",
    "json_schema",
    "json schema",
    "json_object",
    "structured",
    "guided",
)
_NOT_TAKEN = (
    "not supported",
    "unsupported",
    "not permitted",
    "unexpected",
    "unknown",
    "unrecognized",
    "instead",
    "extra",
)
_TOO_MUCH = ("too large", "too long", "maximum context", "context length", "exceed")


class AskFailed(Exception):
    """One question has no answer after every attempt; `str(error)` says why. The other questions continue."""


class ServiceRefuses(Exception):
    """The service will answer nothing more: wrong key, no permission, no such model, quota or budget used up."""


@dataclass(frozen=True)
class Endpoint:
    """Which model answers, and how it is asked.

    base_url: of the API, such as http://localhost:8000/v1; None is OpenAI's.
    timeout_s: of one request, from its first byte to the last of its reply.
    concurrency: requests at a time.
    attempts: of one question, with exponential back-off from `backoff_s` and jitter.
    prices: US dollars per million input and output tokens, None where unknown.
    max_requests, max_usd: limits of one run.
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
        if not 0 < self.timeout_s < math.inf:
            raise ValueError(f"timeout_s must be a positive number of seconds, found {self.timeout_s}")

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """US dollars, None where the model's prices are unknown."""
        if self.prices is None:
            return None
        return (prompt_tokens * self.prices[0] + completion_tokens * self.prices[1]) / 1e6


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
        self._client = openai.AsyncOpenAI(
            api_key=key or "none", base_url=endpoint.base_url, timeout=endpoint.timeout_s, max_retries=0
        )
        self._loop = _loop_of(self)
        self._lock = threading.Lock()
        self._in_flight: dict[str, threading.Lock] = {}
        self._refusal: ServiceRefuses | None = None
        self._not_taken: frozenset[str] = frozenset()

    @property
    def usd(self) -> float | None:
        return self.endpoint.usd(self.prompt_tokens, self.completion_tokens)

    @property
    def adaptations(self) -> list[str]:
        """How the server had to be asked otherwise than it was to be, in words for a report."""
        return [words for name, words in _ADAPTATIONS.items() if name in self._not_taken]

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
        try:
            json.dumps(messages, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise AskFailed("the question holds half a character (a lone surrogate); fix its text") from None
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(endpoint.attempts),
            wait=_Backoff(endpoint.backoff_s),
            retry=tenacity.retry_if_exception(_is_transient),
            reraise=True,
        )
        try:
            return retrying(self._send_once, messages, schema)
        except (openai.APITimeoutError, TimeoutError):
            raise AskFailed(f"no answer within {endpoint.timeout_s:g} s, {endpoint.attempts} attempts") from None
        except openai.APIStatusError as error:
            raise self._failure(error) from None
        except BadReply as error:
            raise (self._refuse(_safe(str(error))) if error.refuses else AskFailed(_safe(str(error)))) from None
        except (openai.OpenAIError, ValueError) as error:
            raise AskFailed(f"{type(error).__name__}: {_safe(str(error))}") from None

    def _failure(self, error: openai.APIStatusError) -> Exception:
        """What a status that is an error means for this question or for all, in the provider's own words."""
        status, words = error.status_code, _safe(_words(error))
        if status == 402 or credit_is_used_up(words) or credit_is_used_up(f"{error.code} {error.type}"):
            return self._refuse(f"HTTP {status}: the credit or quota is used up: {words}")
        if status in (401, 403, 404):
            return self._refuse(f"HTTP {status}: {words}; check {KEY_VARIABLE}, model and base_url")
        if status == 429:
            return AskFailed(f"too many requests, {self.endpoint.attempts} attempts: {words}")
        return AskFailed(f"HTTP {status}: {words}")

    def _send_once(self, messages: list[dict], schema: dict | None) -> Reply:
        for _ in range(1 + len(_ADAPTATIONS)):
            self._claim()
            not_taken = self._not_taken
            try:
                completion = read_completion(self._request(messages, self._arguments(schema, not_taken)))
                break
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                unwanted = _unwanted(_words(error), error.param) - not_taken
                if not unwanted:
                    raise
                with self._lock:
                    self._not_taken |= unwanted
        prompt_tokens, completion_tokens = completion.prompt_tokens, completion.completion_tokens
        if prompt_tokens is None:
            prompt_tokens = estimate_tokens(messages)
        if completion_tokens is None:
            completion_tokens = len(completion.text) // CHARACTERS_PER_TOKEN
        with self._lock:
            self.prompt_tokens += prompt_tokens
            self.completion_tokens += completion_tokens
        return Reply(completion.text, prompt_tokens, completion_tokens, cut_off=completion.cut_off)

    def _arguments(self, schema: dict | None, not_taken: frozenset[str]) -> dict[str, Any]:
        endpoint = self.endpoint
        tokens = "max_completion_tokens" if "max_tokens" in not_taken else "max_tokens"
        arguments: dict[str, Any] = {"model": endpoint.model, tokens: endpoint.max_tokens}
        if "temperature" not in not_taken:
            arguments["temperature"] = endpoint.temperature
        if schema is not None and "response_format" not in not_taken:
            json_schema = {"name": "reply", "schema": schema, "strict": True}
            arguments["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        return arguments

    def _request(self, messages: Any, arguments: dict[str, Any]) -> bytes:
        """The body of the reply. Raises TimeoutError after `timeout_s`, however many bytes trickle in until then."""

        async def request() -> bytes:
            create = self._client.chat.completions.with_raw_response.create
            async with asyncio.timeout(self.endpoint.timeout_s):
                return (await create(messages=messages, **arguments)).content

        return asyncio.run_coroutine_threadsafe(request(), self._loop).result()

    def _claim(self):
        """Counts a request, unless the service or the budget is at its end."""
        with self._lock:
            if self._refusal is not None:
                raise self._refusal
            endpoint, spent = self.endpoint, self.usd
            if endpoint.max_requests is not None and self.requests >= endpoint.max_requests:
                raise self._refuse(f"max_requests = {endpoint.max_requests} reached")
            if endpoint.max_usd is not None and spent is not None and spent >= endpoint.max_usd:
                raise self._refuse(f"max_usd = {endpoint.max_usd} reached ({spent:.2f} US dollars spent)")
            self.requests += 1

    def _refuse(self, why: str) -> ServiceRefuses:
        self._refusal = ServiceRefuses(why)
        return self._refusal


def _loop_of(asker: Asker) -> asyncio.AbstractEventLoop:
    """An event loop in a thread of its own, for as long as the asker lives: its requests can be given up at any moment."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="asker", daemon=True).start()
    weakref.finalize(asker, loop.call_soon_threadsafe, loop.stop)
    return loop


def _unwanted(words: str, parameter: str | None) -> set[str]:
    """Which of our parameters a server says that it does not take, by its words; {} for any other complaint."""
    text = words.lower()
    if any(sign in text for sign in _TOO_MUCH):
        return set()
    if parameter in _ADAPTATIONS:
        return {parameter}
    if "max_tokens" in text and any(sign in text for sign in ("max_completion_tokens", *_NOT_TAKEN)):
        return {"max_tokens"}
    if "temperature" in text:
        return {"temperature"}
    return {"response_format"} if any(sign in text for sign in _SCHEMA_WORDS) else set()


class _Backoff(tenacity.wait.wait_base):
    """What Retry-After asks for, else exponential with full jitter, 60 s at most."""

    def __init__(self, first_s: float):
        self.exponential = tenacity.wait_random_exponential(multiplier=first_s, max=_LONGEST_WAIT_S)

    def __call__(self, retry_state) -> float:
        response = getattr(retry_state.outcome.exception(), "response", None)
        asked = response.headers.get("retry-after", "") if response is not None else ""
        try:
            seconds = float(asked)
        except ValueError:  # absent, or a date
            seconds = math.nan
        return min(seconds, _LONGEST_WAIT_S) if seconds >= 0 else self.exponential(retry_state)


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, openai.APIStatusError):
        if credit_is_used_up(f"{_words(error)} {error.code} {error.type}"):
            return False
        return error.status_code >= 500 or error.status_code in (408, 409, 429)
    if isinstance(error, BadReply):
        return error.again
    # A cut connection, a time-out.
    return isinstance(error, (openai.APIConnectionError, TimeoutError))


def _words(error: openai.APIStatusError) -> str:
    """The provider's own words, else the client's."""
    return words_of(error.body) if error.body else str(error)


def _safe(text: str) -> str:
    """A message for people, in one line, without what the client may have been configured with."""
    text = " ".join(text.split())
    key = os.environ.get(KEY_VARIABLE)
    return (text.replace(key, "***") if key else text)[:300]


def estimate_tokens(messages: Iterable[dict]) -> int:
    """About how many tokens the messages have: their text, and IMAGE_TOKENS for each picture."""
    contents = [message["content"] for message in messages]
    parts = [part for content in contents for part in (content if isinstance(content, list) else [content])]
    texts = [part if isinstance(part, str) else part.get("text", "") for part in parts]
    images = sum(isinstance(part, dict) and part.get("type") == "image_url" for part in parts)
    return sum(map(len, texts)) // CHARACTERS_PER_TOKEN + images * IMAGE_TOKENS
