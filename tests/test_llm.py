"""Asking a model: what is retried, what ends everything, what is paid for."""

import json
import sqlite3
import threading
import time

import pytest

from swim.concurrently import run_concurrently
from swim.llm import Asker, AskFailed, Endpoint, ServiceRefuses
from swim.reply_cache import Reply, ReplyCache

from .chat_server import Answer, ChatServer

QUESTION = [{"role": "user", "content": "2 + 2?"}]


@pytest.fixture
def make_asker(tmp_path, monkeypatch):
    """Function: an Asker of a server, with short waits; a key that must never show up anywhere."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    def make(server: ChatServer, cache: str = "replies.sqlite", **changes) -> Asker:
        options = {"model": "m", "base_url": server.url, "timeout_s": 2, "backoff_s": 0.01, "attempts": 4, **changes}
        return Asker(Endpoint(**options), ReplyCache(tmp_path / cache))

    return make


def first(*answers):
    """Behaviour: these answers in turn, then "four"."""
    left = list(answers)
    return lambda request: left.pop(0) if left else "four"


TRANSIENT = {
    "429": Answer(status=429),
    "429 with Retry-After": Answer(status=429, headers={"Retry-After": "0"}),
    "500": Answer(status=500),
    "503": Answer(status=503),
    "hangs": Answer("late", hang_s=3),
    "cut": Answer(cut=True),
    "empty body": Answer(body=b""),
    "no JSON": Answer(body=b"<html>busy</html>"),
    "empty reply": Answer(""),
    "no choices": Answer(body=b'{"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": []}'),
}


@pytest.mark.parametrize("name", TRANSIENT)
def test_what_passes_is_asked_again(make_asker, name):
    with ChatServer(first(TRANSIENT[name], TRANSIENT[name])) as server:
        assert make_asker(server).ask(QUESTION).text == "four"
        assert len(server.requests) == 3


@pytest.mark.parametrize("name", ["429", "500", "cut", "empty reply", "no JSON"])
def test_what_does_not_pass_fails_this_question_alone(make_asker, name):
    def behave(request):
        return "four" if request["messages"] == QUESTION else TRANSIENT[name]

    with ChatServer(behave) as server:
        asker = make_asker(server)
        with pytest.raises(AskFailed):
            asker.ask([{"role": "user", "content": "other"}])
        assert len(server.requests) == 4
        assert asker.ask(QUESTION).text == "four"


REFUSALS = {
    "wrong key": Answer(status=401, error={"message": "bad key sk-secret", "type": "x", "code": "invalid_api_key"}),
    "no permission": Answer(status=403),
    "no such model": Answer(status=404),
    "no quota": Answer(
        status=429, error={"message": "pay", "type": "insufficient_quota", "code": "insufficient_quota"}
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_ends_everything_at_once(make_asker, name):
    with ChatServer(lambda request: REFUSALS[name]) as server:
        asker = make_asker(server)
        for content in ("one", "two"):
            with pytest.raises(ServiceRefuses) as error:
                asker.ask([{"role": "user", "content": content}])
            assert "sk-secret" not in str(error.value)
        assert len(server.requests) == 1


def test_nothing_is_asked_twice(make_asker):
    with ChatServer(lambda request: Answer("four", hang_s=0.2)) as server:
        asker, replies = make_asker(server), []
        threads = [threading.Thread(target=lambda: replies.append(asker.ask(QUESTION))) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [reply.text for reply in replies] == ["four"] * 5 and len(server.requests) == 1
        assert make_asker(server).ask(QUESTION).cached  # another process, later
        assert (asker.requests, asker.prompt_tokens, asker.completion_tokens) == (1, 100, 10)
        for changed in ({"model": "n"}, {"temperature": 0.5}, {"max_tokens": 3}):
            assert not make_asker(server, **changed).ask(QUESTION).cached
        assert server.keys == {"Bearer sk-secret"}


def test_the_key_is_in_no_file(make_asker, tmp_path):
    with ChatServer(lambda request: "four") as server:
        make_asker(server).ask(QUESTION)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not any(b"sk-secret" in path.read_bytes() for path in files)


def test_a_server_without_structured_output_is_asked_without(make_asker):
    def behave(request):
        if "response_format" in request:
            return Answer(status=400, error={"message": "response_format is not supported", "type": "x", "code": None})
        return "four"

    with ChatServer(behave) as server:
        asker = make_asker(server)
        assert asker.ask(QUESTION, {"type": "object"}).text == "four"
        assert asker.ask([{"role": "user", "content": "other"}], {"type": "object"}).text == "four"
        assert ["response_format" in request for request in server.requests] == [True, False, False]


def test_budgets_end_the_run(make_asker):
    with ChatServer(lambda request: "four") as server:
        few = make_asker(server, max_requests=2)
        few.ask([{"role": "user", "content": "a"}]), few.ask([{"role": "user", "content": "b"}])
        with pytest.raises(ServiceRefuses, match="max_requests = 2 reached"):
            few.ask([{"role": "user", "content": "c"}])
        cheap = make_asker(server, "other.sqlite", max_usd=0.001, prices=(10.0, 10.0))
        cheap.ask(QUESTION)
        with pytest.raises(ServiceRefuses, match="max_usd = 0.001 reached"):
            cheap.ask([{"role": "user", "content": "c"}])
    with pytest.raises(ValueError, match="max_usd needs the prices of m"):
        Endpoint("m", max_usd=1.0)


def test_a_key_or_a_server_is_needed(monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match="OPENAI_API_KEY is not set"):
        Asker(Endpoint("m"), ReplyCache(tmp_path / "r.sqlite"))
    (tmp_path / "text.sqlite").write_text("this is no database, and it is long enough to be noticed " * 10)
    with pytest.raises(ValueError, match="not a cache of replies"):
        ReplyCache(tmp_path / "text.sqlite")


def test_concurrent_tasks_are_bounded_and_stop_at_an_error():
    running, most, started, lock = 0, 0, [], threading.Lock()

    def work(number):
        nonlocal running, most
        with lock:
            running, started[len(started) :] = running + 1, [number]
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        if number == 30:
            raise ServiceRefuses("enough")
        return number * 2

    assert sorted(run_concurrently(range(25), work, 4)) == [(number, number * 2) for number in range(25)]
    assert most <= 4
    with pytest.raises(ServiceRefuses):
        list(run_concurrently(range(25, 500), work, 4))
    assert max(started) < 60


def test_what_is_under_way_when_a_call_raises_is_not_lost():
    refused = threading.Event()

    def work(number):
        if number == 2:
            refused.set()
            raise ServiceRefuses("enough")
        refused.wait()
        time.sleep(0.05 * number)
        return number * 2

    given = []
    with pytest.raises(ServiceRefuses):
        for result in run_concurrently(range(100), work, 3):
            given.append(result)
    assert sorted(given)[:2] == [(0, 0), (1, 2)] and len(given) < 6


def body(message, finish: str = "stop", **more) -> Answer:
    """A reply with this message, a dict, or whatever else a server writes there."""
    content = {"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": finish}], **more}
    return Answer(body=json.dumps(content).encode())


GIVEN = {
    "a list of parts": (body({"content": [{"type": "text", "text": "fo"}, {"type": "text", "text": "ur"}]}), "four"),
    "thinking parts": (
        body(
            {
                "content": [
                    {"type": "thinking", "thinking": "2 + 2"},
                    {"type": "reasoning", "text": "hm"},
                    {"type": "text", "text": "four"},
                ]
            }
        ),
        "four",
    ),
    "texts in a list": (body({"content": ["fo", "ur", {"type": "image_url"}, None, 3]}), "four"),
    "a thinking block": (body({"content": "<think>2 + 2</think>\n\nfour"}), "four"),
    "reasoning beside": (body({"content": "four", "reasoning_content": "2 + 2"}), "four"),
    "the older layout": (Answer(body=b'{"choices": [{"text": "four"}]}'), "four"),
    "no usage": (body({"content": "four"}), "four"),
    "usage null": (body({"content": "four"}, usage=None), "four"),
    "usage of nulls": (body({"content": "four"}, usage={"prompt_tokens": None, "completion_tokens": "10"}), "four"),
    "a part of usage": (body({"content": "four"}, usage={"total_tokens": 3}), "four"),
    "usage below zero": (body({"content": "four"}, usage={"prompt_tokens": -1, "completion_tokens": 1e300}), "four"),
    "usage a list": (body({"content": "four"}, usage=[]), "four"),
    "half an emoji": (Answer(body=b'{"choices": [{"message": {"content": "four \\ud83d"}}]}'), "four \ufffd"),
    "bytes that are no UTF-8": (Answer(body=b'{"choices": [{"message": {"content": "four \xff"}}]}'), "four \ufffd"),
    "unknown keys everywhere": (body({"content": "four", "x": 1}, y=[1]), "four"),
    "several choices": (
        Answer(body=b'{"choices": [{"message": {"content": "four"}}, {"message": {"content": "five"}}]}'),
        "four",
    ),
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_text_is_found_in_any_shape(make_asker, name):
    answer, text = GIVEN[name]
    with ChatServer(lambda request: answer) as server:
        asker = make_asker(server)
        assert asker.ask(QUESTION).text == text
        assert asker.ask(QUESTION).cached and len(server.requests) == 1
        assert 0 <= asker.prompt_tokens < 1000 and 0 <= asker.completion_tokens < 1000


ODD = {
    "message null": (body(None), "the reply is empty"),
    "content null": (body({"content": None}), "the reply is empty"),
    "content a number": (body({"content": 4}), "the reply is empty"),
    "no message": (Answer(body=b'{"choices": [{}]}'), "the reply is empty"),
    "a choice that is text": (Answer(body=b'{"choices": ["four"]}'), "no choices in the reply"),
    "choices null": (
        Answer(body=b'{"choices": null, "note": "busy"}'),
        'no choices in the reply: {"choices": null, "note": "busy"}',
    ),
    "a text": (Answer(body=b'"four"'), "expected a JSON object, found four"),
    "a list": (Answer(body=b'["four"]'), 'expected a JSON object, found ["four"]'),
    "a number": (Answer(body=b"4"), "expected a JSON object, found 4"),
    "null": (Answer(body=b"null"), "expected a JSON object, found null"),
    "HTML": (Answer(body=b"<html>busy</html>"), "expected JSON, found <html>busy</html>"),
    "too deep": (Answer(body=b"[" * 100_000), "expected JSON, found ["),
    "an error": (Answer(body=b'{"error": {"message": "model is loading"}}'), "model is loading"),
    "an error in words": (Answer(body=b'{"error": "model is loading", "choices": []}'), "model is loading"),
    "an error of a choice": (
        Answer(body=b'{"choices": [{"error": {"code": 502, "message": "upstream failed"}, "message": null}]}'),
        "upstream failed",
    ),
    "a refusal": (
        body({"content": None, "refusal": "I cannot help with that."}),
        "the model refuses: I cannot help with that.",
    ),
    "a filter": (
        body({"content": ""}, "content_filter"),
        "content filter stopped the reply (finish_reason: content_filter)",
    ),
    "the limit": (
        body({"content": ""}, "length"),
        "the reply ends at max_tokens before any text (finish_reason: length)",
    ),
    "the limit in thought": (
        body({"content": "<think>2 + 2"}, "length"),
        "the reply ends at max_tokens while it was thinking (finish_reason: length)",
    ),
    "thinking alone": (body({"content": "", "reasoning_content": "2 + 2"}), "the reply is thinking alone"),
    "a tool": (body({"content": None, "tool_calls": [{"id": "1"}]}, "tool_calls"), "the model calls a tool"),
    "400 in its own words": (Answer(status=400, error={"message": "image too small"}), "HTTP 400: image too small"),
    "422 of FastAPI": (
        Answer(status=422, body=b'{"detail": [{"loc": ["body", "messages"], "msg": "too many"}]}'),
        "HTTP 422: body.messages: too many",
    ),
    "an error that is a text": (Answer(status=500, body=b"upstream died"), "HTTP 500: upstream died"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_reply_fails_this_question_in_the_providers_words(make_asker, name):
    answer, message = ODD[name]

    def behave(request):
        return "four" if request["messages"] == QUESTION else answer

    with ChatServer(behave) as server:
        asker = make_asker(server, attempts=2)
        with pytest.raises(AskFailed) as error:
            asker.ask([{"role": "user", "content": "other"}])
        assert message in str(error.value) and "\n" not in str(error.value)
        assert asker.ask(QUESTION).text == "four"


NO_CREDIT = {
    "402": Answer(status=402, error={"message": "Insufficient credits"}),
    "400": Answer(status=400, error={"message": "Your credit balance is too low to access the API."}),
    "403": Answer(status=403, error={"message": "billing not active", "code": "billing_not_active"}),
    "429": Answer(status=429, error={"message": "You exceeded your current quota, please check your plan"}),
    "200": Answer(body=b'{"error": {"code": 402, "message": "This request requires more credits"}}'),
    "200 in words": Answer(body='{"error": {"message": "余额不足"}}'.encode()),
}


@pytest.mark.parametrize("name", NO_CREDIT)
def test_used_up_credit_ends_the_run_in_the_providers_words(make_asker, name):
    with ChatServer(lambda request: NO_CREDIT[name]) as server:
        asker = make_asker(server)
        for content in ("one", "two"):
            with pytest.raises(ServiceRefuses, match="(?i)credit|quota|billing|余额"):
                asker.ask([{"role": "user", "content": content}])
        assert len(server.requests) == 1


def test_a_reply_that_is_cut_off_says_so(make_asker):
    with ChatServer(lambda request: body({"content": "fo"}, "length")) as server:
        asker = make_asker(server)
        assert asker.ask(QUESTION).cut_off and asker.ask(QUESTION).cut_off  # from the cache too


def test_a_question_with_half_a_character_is_named(make_asker):
    with ChatServer(lambda request: "four") as server:
        with pytest.raises(AskFailed, match="half a character"):
            make_asker(server).ask([{"role": "user", "content": "2 \ud83d 2?"}])
        assert server.requests == []


@pytest.mark.parametrize("headers", [False, True], ids=["in the body", "in the headers"])
def test_bytes_that_trickle_in_do_not_stretch_the_time(make_asker, headers):
    with ChatServer(lambda request: Answer(drip_s=20, drip_headers=headers)) as server:
        asker, begun = make_asker(server, timeout_s=0.5, attempts=2), time.monotonic()
        with pytest.raises(AskFailed, match="no answer within 0.5 s, 2 attempts"):
            asker.ask(QUESTION)
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(seconds):
    with pytest.raises(ValueError, match="timeout_s must be a positive number of seconds"):
        Endpoint("m", timeout_s=seconds)


@pytest.mark.parametrize("asked", ["-5", "nan", "-inf", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", ""])
def test_a_retry_after_that_is_no_time_is_passed_over(make_asker, asked):
    with ChatServer(first(Answer(status=429, headers={"Retry-After": asked}))) as server:
        assert make_asker(server).ask(QUESTION).text == "four"


NEWER = {
    "max_tokens": (
        lambda r: "max_tokens" in r,
        {
            "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        },
        "max_completion_tokens instead of max_tokens",
    ),
    "max_tokens of a validator": (
        lambda r: "max_tokens" in r,
        {"message": "max_tokens: Extra inputs are not permitted", "param": "max_tokens"},
        "max_completion_tokens instead of max_tokens",
    ),
    "temperature": (
        lambda r: "temperature" in r,
        {"message": "Unsupported value: 'temperature' does not support 0 with this model."},
        "no temperature: the server's default",
    ),
    "json_schema": (
        lambda r: "response_format" in r,
        {"message": "This model does not support structured outputs of type json_schema"},
        "no response_format: the prompt asks for JSON",
    ),
    "guided decoding": (
        lambda r: "response_format" in r,
        {"message": "guided decoding backend is not available"},
        "no response_format: the prompt asks for JSON",
    ),
}


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("name", NEWER)
def test_what_a_server_does_not_take_is_left_out_once_and_told(make_asker, name, status):
    unwanted, error, words = NEWER[name]

    def behave(request):
        return Answer(status=status, error={"type": "x", "code": None, **error}) if unwanted(request) else "four"

    with ChatServer(behave) as server:
        asker = make_asker(server)
        assert asker.adaptations == []
        for content in ("one", "two"):
            assert asker.ask([{"role": "user", "content": content}], {"type": "object"}).text == "four"
        assert asker.adaptations == [words]
        assert [unwanted(request) for request in server.requests] == [True, False, False]
        limits = [request.get("max_tokens", request.get("max_completion_tokens")) for request in server.requests]
        assert limits == [512] * 3


def test_a_server_that_takes_none_of_it(make_asker):
    def behave(request):
        for error in (error for unsupported, error, _ in NEWER.values() if unsupported(request)):
            return Answer(status=400, error=error)
        return "four"

    with ChatServer(behave) as server:
        asker = make_asker(server)
        assert asker.ask(QUESTION, {"type": "object"}).text == "four" and len(asker.adaptations) == 3


@pytest.mark.parametrize(
    "message",
    [
        "'max_tokens' or 'max_completion_tokens' is too large: 9000. This model's maximum context length is 8192 tokens",
        "This model's maximum context length is 8192 tokens, max_tokens exceeds it",
    ],
)
def test_a_limit_that_is_too_large_is_told_and_not_adapted_to(make_asker, message):
    with ChatServer(lambda request: Answer(status=400, error={"message": message})) as server:
        asker = make_asker(server)
        with pytest.raises(AskFailed) as error:
            asker.ask(QUESTION)
        assert message[:60] in str(error.value) and asker.adaptations == [] and len(server.requests) == 1


def test_a_cache_of_an_earlier_release_is_still_read(tmp_path):
    with sqlite3.connect(tmp_path / "r.sqlite") as database:
        database.execute(
            "CREATE TABLE replies (key TEXT PRIMARY KEY, text TEXT NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER, "
            "model TEXT, created TEXT)"
        )
        database.execute("INSERT INTO replies VALUES ('k', 'four', 1, 2, 'm', 'today')")
    assert ReplyCache(tmp_path / "r.sqlite").get("k") == Reply("four", 1, 2, cached=True)
