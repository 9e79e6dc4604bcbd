"""The command from VideoRefer files to NL-Refer ones, past a model that does all that models and servers do."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from swim.cli.construct import main
from swim.construct.checks import Refusal
from swim.data.bench import parse_bench_d, parse_bench_q
from swim.data.records import parse_record

from ..chat_server import Answer, ChatServer
from .player import edited, play, reply_to
from .records import CAPTION, PAIR, QUESTION, conversation


def rejected(tmp_path, output="out") -> list[dict]:
    return [json.loads(line) for line in (tmp_path / output / "rejected.jsonl").read_text().splitlines()]


def numbered(count: int) -> list[dict]:
    """Different records; every fifth is about two instances."""
    return [
        {**PAIR, "id": n, "conversations": [{**t, "value": f"{t['value']} No. {n}."} for t in PAIR["conversations"]]}
        if n % 5 == 0
        else conversation(f"Where is the [<region>] in clip {n}?", f"On bed {n}.", id=n)
        for n in range(count)
    ]


def test_a_run_from_placeholders_to_valid_records(run, write, tmp_path, capsys):
    requests = []
    status, provenance, records = run(lambda r: requests.append(r) or play(r), write(numbered(12)), shard_size=5)
    assert status == 0 and len(records) == 12 and [record["id"] for record in records] == list(range(12))
    assert provenance["outputs"] == {
        f"refined-format-videorefer-caption-0000{n}.json": s for n, s in enumerate((5, 5, 2))
    }
    for record in records:
        assert parse_record(record, "x", "").instances
    assert records[0]["conversations"][0]["value"] == (
        "<video>\nHow do the <ins>dog</ins> and the <ins>laptop</ins> relate? No. 0."
    )
    assert records[1]["conversations"][0]["value"] == "Where is the <ins>dog</ins> in clip 1?"
    assert provenance["counts"] == {
        "records": 12, "accepted": 12, "rejected": 0, "open": 0, "by_reason": {}, "mean_replies_per_accepted": 1.0
    }  # fmt: skip
    assert provenance["complete"] and provenance["model"] == "m" and provenance["host"].startswith("127.0.0.1:")
    assert provenance["this_run"] == {"requests": 12, "prompt_tokens": 1200, "completion_tokens": 120, "usd": None}
    assert requests[0]["response_format"]["type"] == "json_schema" and requests[0]["temperature"] == 0
    printed = capsys.readouterr().out
    assert "12 requests to m: about" in printed and "sk-secret" not in printed
    assert not any(b"sk-secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_nothing_is_paid_twice_and_smaller_runs_grow(run, write):
    path, asked = write(numbered(8)), []
    _, first, few = run(lambda r: asked.append(r) or play(r), path, shard_size=2, limit=6)
    assert len(asked) == 6 and len(few) == 6 and len(first["outputs"]) == 3
    _, whole, records = run(lambda r: asked.append(r) or play(r), path, shard_size=100)
    assert len(asked) == 8 and len(records) == 8  # the shards of the first run are gone
    assert whole["this_run"]["requests"] == 2 and whole["all_replies"]["replies"] == 8
    assert whole["all_replies"]["prompt_tokens"] == 800 and whole["inputs"][0]["records"] == 8


def test_benches_stay_whole_and_have_synonyms(run, write, tmp_path):
    inputs = write([CAPTION], "VideoRefer-Bench-D.json"), write([QUESTION], "VideoRefer-Bench-Q.json")
    status, provenance, _ = run(play, *inputs, synonyms=True)
    assert status == 0 and list(provenance["outputs"]) == [
        "refined-VideoRefer-Bench-D.json",
        "refined-VideoRefer-Bench-Q.json",
        "refined-VideoRefer-Bench-D-synonym.json",
        "refined-VideoRefer-Bench-Q-synonym.json",
    ]
    for name, noun, other in (("", "dog", "laptop"), ("-synonym", "canine", "notebook")):
        (d,) = json.loads((tmp_path / f"out/refined-VideoRefer-Bench-D{name}.json").read_text())
        (q,) = json.loads((tmp_path / f"out/refined-VideoRefer-Bench-Q{name}.json").read_text())
        item = parse_bench_d(d, "x", "")
        assert item.question == f"Please give a detailed description of the <ins>{noun}</ins>."
        assert item.reference == CAPTION["caption"] and "caption" not in d and d["frame_idx"] == "0"
        question = parse_bench_q(q, "x", "")
        assert question.question == f"What does the <ins>{noun}</ins> do beside the <ins>{other}</ins>?"
        assert (
            question.options[1] == question.answer == f"(B) It eats the <ins>{other}</ins>" and question.letter == "B"
        )


def test_synonyms_are_for_benches(flags, write, capsys):
    with ChatServer(play) as server:
        assert main(flags(server, write([PAIR]), synonyms=True)) == 2
        assert server.requests == []
    assert "--synonyms is for Bench-D and Bench-Q" in capsys.readouterr().err


def test_a_dry_run_asks_nobody(flags, write, tmp_path, capsys):
    with ChatServer(play) as server:
        prices = ["--usd_per_million", "2.5", "10"]
        assert main([*flags(server, write(numbered(10)), dry_run=True), *prices]) == 0
        assert server.requests == []
    printed = capsys.readouterr().out
    assert "10 requests to m: about" in printed and "US dollars" in printed
    assert not (tmp_path / "out").exists()


def twice(answer):
    """Behaviour of one record: this answer two times, then as asked."""
    return lambda request, tries: answer if tries < 2 else play(request)


def always(behave):
    return lambda request, tries: behave(request) if callable(behave) else behave


def edited_reply(change):
    def behave(request):
        reply = reply_to(request)
        change(reply)
        return json.dumps(reply)

    return always(behave)


def merge(reply):
    reply["objects"] = [{**entry, "noun": "dog"} for entry in reply["objects"]]
    for entry in reply["texts"]:
        entry["rewritten"] = entry["rewritten"].replace("laptop", "dog")


def unite(reply):
    for entry in reply["texts"]:
        entry["rewritten"] = entry["rewritten"].replace(
            "the <ins>dog</ins> and the <ins>laptop</ins>", "the <ins>things</ins>"
        )


# What the server does with one of twelve records, and the reason of its refusal; None where it is accepted in the end.
FAULTS = {
    "429 with Retry-After": (twice(Answer(status=429, headers={"Retry-After": "0"})), None),
    "500": (twice(Answer(status=500)), None),
    "hangs": (lambda request, tries: Answer(hang_s=2.5) if tries < 1 else play(request), None),
    "cuts the connection": (twice(Answer(cut=True)), None),
    "no JSON body": (twice(Answer(body=b"<html>busy</html>")), None),
    "prose twice": (twice("Certainly, here is the rewriting."), None),
    "one bad rewriting": (lambda r, tries: (edited(str.upper) if tries < 1 else play)(r), None),
    "always 500": (always(Answer(status=500)), Refusal.NO_REPLY),
    "always cut": (always(Answer(cut=True)), Refusal.NO_REPLY),
    "never JSON": (always("Certainly."), Refusal.NOT_JSON),
    "cut JSON": (always(lambda r: play(r)[:-30]), Refusal.NOT_JSON),
    "placeholder left": (always(edited(lambda t: t.replace("<ins>dog</ins>", "<object0>"))), Refusal.PLACEHOLDER),
    "tags open": (always(edited(lambda t: t.replace("</ins>", ""))), Refusal.TAGS),
    "merged instances": (edited_reply(merge), Refusal.NOT_TOLD_APART),
    "one phrase for two": (edited_reply(unite), Refusal.NO_PHRASE),
    "phrases swapped": (
        always(edited(lambda t: t.replace("dog", "x").replace("laptop", "dog").replace("x<", "laptop<"))),
        Refusal.NUMBERING,
    ),
    "a fact added behind": (always(edited(lambda t: t + " FACT-17 happened.")), Refusal.TEXT),
    "a fact added within": (always(edited(lambda t: t.replace("</ins>", "</ins> with FACTX17"))), Refusal.UNGROUNDED),
    "wrong language": (
        always(edited(lambda t: "Was haben der <ins>dog</ins> und der <ins>laptop</ins> miteinander zu tun?")),
        Refusal.LANGUAGE,
    ),
    "other letters": (always(edited(lambda t: "<ins>dog</ins>和<ins>laptop</ins>之间有什么关系？")), Refusal.LANGUAGE),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_ends_accepted_or_refused_by_its_reason(run, write, tmp_path, name):
    """The fault strikes every request about record 5 of 12; the others go as usual."""
    fault, reason = FAULTS[name]
    tries = [0]

    def behave(request):
        if "No. 5." not in json.dumps(request["messages"][1]):
            return play(request)
        tries[0] += 1
        return fault(request, tries[0] - 1)

    status, provenance, records = run(behave, write(numbered(12)), concurrency=3)
    counts = provenance["counts"]
    assert status == 0 and counts["accepted"] + counts["rejected"] == counts["records"] == 12
    assert all(parse_record(record, "x", "").instances for record in records) and len(records) == counts["accepted"]
    if reason is None:
        assert counts["accepted"] == 12 and tries[0] >= 2
        return
    (entry,) = rejected(tmp_path)
    assert (entry["position"], entry["id"], entry["reason"]) == (5, 5, str(reason)), entry
    assert entry["file"] == "videorefer-caption.json" and entry["message"]
    assert tries[0] == 3 and counts["by_reason"] == {str(reason): 1}


def test_a_changed_answer_letter_is_refused(run, write, tmp_path):
    status, provenance, _ = run(edited(lambda t: t.replace("(B)", "(C)")), write([QUESTION], "Bench-Q.json"))
    assert status == 0 and provenance["counts"]["by_reason"] == {str(Refusal.LETTER): 1}
    assert len(rejected(tmp_path)[0]["replies"]) == 3


def test_the_reason_is_told_and_the_dialogue_goes_on(run, write):
    asked = []

    def behave(request):
        asked.append(request["messages"])
        return edited(str.lower)(request) if len(request["messages"]) < 4 else play(request)

    _, provenance, records = run(behave, write([PAIR]))
    assert len(records) == 1 and [len(messages) for messages in asked] == [2, 4]
    assert "text changed beyond the rewriting" in asked[1][3]["content"]
    assert provenance["counts"]["mean_replies_per_accepted"] == 2.0


def test_bad_and_empty_records_are_counted_and_cost_nothing(run, write, tmp_path):
    bad = [{**PAIR, "annotation": []}, conversation("What happens?", "Nothing."), {"id": 9}, "no object"][:3]
    asked = []
    _, provenance, records = run(lambda r: asked.append(r) or play(r), write([bad[0], PAIR, *bad[1:]]))
    assert len(asked) == len(records) == 1 and provenance["counts"]["records"] == 4
    assert [entry["reason"] for entry in rejected(tmp_path)] == [
        str(Refusal.BAD_INPUT), str(Refusal.NO_PLACEHOLDER), str(Refusal.BAD_INPUT)
    ]  # fmt: skip


def test_frames_that_cannot_be_read_refuse_a_record_before_it_costs(run, write, tmp_path):
    asked = []
    _, provenance, _ = run(lambda r: asked.append(r) or play(r), write([PAIR]), with_frames=2)
    assert asked == [] and provenance["counts"]["by_reason"] == {str(Refusal.NO_FRAMES): 1}
    assert "no such video" in rejected(tmp_path)[0]["message"]


def test_a_budget_or_a_wrong_key_ends_the_run_and_keeps_everything(run, write, tmp_path, capsys):
    path = write(numbered(20))
    status, provenance, records = run(play, path, max_requests=7, concurrency=1)
    assert status == 2 and "error: max_requests = 7 reached" in capsys.readouterr().err
    counts = provenance["counts"]
    assert counts["accepted"] == len(records) == 7 and counts["open"] == 13 and not provenance["complete"]
    status, provenance, _ = run(lambda r: Answer(status=401), path, concurrency=1)
    error = capsys.readouterr().err
    assert status == 2 and "error: HTTP 401" in error and "sk-secret" not in error
    assert provenance["counts"]["accepted"] == 7 and provenance["stopped"].startswith("HTTP 401")
    asked = []
    status, provenance, records = run(lambda r: asked.append(r) or play(r), path, concurrency=4)
    assert status == 0 and len(asked) == 13 and len(records) == 20 and provenance["complete"]


def test_what_cannot_be_run_is_one_clear_line(flags, write, tmp_path, capsys):
    good = write([PAIR])
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / good.name
    twin.write_text(good.read_text())
    torn = tmp_path / "torn.json"
    torn.write_text('[{"id": 1}, {"id"')
    with ChatServer(play) as server:
        for inputs, more, message in (
            ([tmp_path / "none.json"], {}, "no such file"),
            ([torn], {}, "torn.json, record 1: malformed JSON"),
            ([good, twin], {}, "two inputs would both be written"),
            ([good], {"max_usd": 1}, "max_usd needs the prices of m"),
        ):
            assert main(flags(server, *inputs, **more)) == 2
            assert message in capsys.readouterr().err
        assert server.requests == []


def paid_questions(cache, asked: dict[int, str]) -> set[str]:
    """The questions whose reply lies in the cache of a killed run; each reply ends in the number of its request."""
    if not cache.exists():
        return set()
    with sqlite3.connect(cache) as database:
        return {asked[int(text.rsplit("#", 1)[1])] for (text,) in database.execute("SELECT text FROM replies")}


@pytest.mark.parametrize(
    ("kills", "count", "limit_s"), [(2, 150, 0.4), pytest.param(10, 2000, 6.0, marks=pytest.mark.slow)]
)
def test_killed_runs_end_in_the_same_files_and_pay_once(flags, write, tmp_path, kills, count, limit_s):
    """Killed at random with 16 requests on their way, while every seventh reply must be asked for again."""
    rng, asked, hang_s = random.Random(0), {}, 0.0

    def behave(request):
        question = json.dumps(request["messages"])
        asked[len(asked)] = question
        bad = len(request["messages"]) < 4 and hash_of(question) % 7 == 0
        text = edited(str.lower)(request) if bad else play(request)
        return Answer(f"{text}#{len(asked) - 1}", hang_s=hang_s * rng.uniform(0.5, 2))

    path, paid_again = write(numbered(count)), []
    with ChatServer(behave) as server:
        options = {"concurrency": 16, "shard_size": 40, "timeout_s": 20}
        assert main(flags(server, path, output="whole", **options)) == 0
        questions = len(asked)
        asked.clear()
        hang_s = 0.05
        command = [sys.executable, "-m", "swim", "construct", *flags(server, path, output="broken", **options)]
        cache = tmp_path / "broken" / "replies.sqlite"
        for _ in range(kills):
            paid, before = paid_questions(cache, asked), len(asked)
            process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            end = time.monotonic() + 60
            while len(asked) == before and process.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, limit_s / kills * 2))
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            paid_again += [question for n, question in asked.items() if n >= before and question in paid]
        paid, before = paid_questions(cache, asked), len(asked)
        assert 0 < len(paid) < questions
        assert main(flags(server, path, output="broken", **options)) == 0
        paid_again += [question for n, question in asked.items() if n >= before and question in paid]
        assert len(paid_questions(cache, asked)) == questions
    assert paid_again == []
    names = {p.name for p in (tmp_path / "whole").iterdir() if not p.name.startswith("replies")} - {"provenance.json"}
    assert len(names) == -(-count // 40) + 1
    for name in names:
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    whole, broken = (json.loads((tmp_path / o / "provenance.json").read_text()) for o in ("whole", "broken"))
    for key in ("counts", "outputs", "inputs", "all_replies", "settings"):
        assert whole[key] == broken[key]


def hash_of(text: str) -> int:
    return sum(text.encode())
