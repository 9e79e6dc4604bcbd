"""Asking a model: what is retried, what ends everything, what is paid for."""

import threading
import time

import pytest

from swim.llm import Asker, AskFailed, Endpoint, ReplyCache, ServiceRefuses, run_concurrently

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
    "no quota": Answer(status=429, error={"message": "pay", "type": "insufficient_quota", "code": "insufficient_quota"}),
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
