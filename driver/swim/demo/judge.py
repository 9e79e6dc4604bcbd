"""A judge for Bench-D of the demo's clips that needs no service: it knows the scenes, and answers as any chat model does.

Deterministic and strict: it reads the sentences that `swim.demo.facts.description` writes, and nothing else. Its scores are
comparable with one another, not with those of a language model.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from swim.data.tags import strip_tags
from swim.demo.facts import DIRECTIONS, SIDES, Track
from swim.demo.shapes import COLOURS, PATTERNS, SHAPES

MODEL = "demo-judge"
BEST, COST = 5, 2  # COST: of a statement that the scene contradicts
_OBJECT = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b")
_PATTERN = re.compile(rf"\b({'|'.join(PATTERNS)})\b")
_DIRECTION = re.compile(rf"\b({'|'.join(DIRECTIONS)})\b")
_NEIGHBOUR = re.compile(rf"({'|'.join(SIDES)}) is the ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})", re.I)
_ASKED = re.compile(r"Question: (.*)\n\nReference description: (.*)\n\nDescription to grade: (.*)\Z", re.S)


class Judge:
    """Grades descriptions of the items of a demo's bench_d.json.

    bench_d, held_out: the file and the records that it was written from, in the same order.
    """

    def __init__(self, bench_d: Path, held_out: Path):
        self._scenes: dict[tuple[str, str], tuple[Track, list[Track]]] = {}
        for item, record in zip(json.loads(bench_d.read_text()), json.loads(held_out.read_text())):
            question, reference = (turn["value"].removeprefix("<video>\n") for turn in item["conversations"])
            tracks = [Track(**thing) for thing in record["all_objects"]]
            asked = next(track for track in tracks if track.tagged in question)
            self._scenes[strip_tags(question)[0], strip_tags(reference)[0]] = asked, tracks

    def grade(self, prompt: str) -> dict[str, int]:
        """The four scores, 0 to 5, for the user's part of a judge's prompt. Raises ValueError for one of another clip."""
        texts = _ASKED.search(prompt)
        scene = self._scenes.get((texts[1], texts[2])) if texts else None
        if texts is None or scene is None:
            raise ValueError(
                f"the {MODEL} knows the scenes of the demo's bench_d.json alone; name another with --judge"
            )
        return scores(texts[3], *scene)


def scores(description: str, asked: Track, tracks: list[Track]) -> dict[str, int]:
    """Grades a description of `asked`, one of the clip's `tracks`.

    Subject: BEST for the first object that is named, 2 where only its colour is right, 1 where only its shape is.
    Appearance, temporal: BEST for the right pattern or direction alone, else 0.
    Hallucination: BEST less COST for each wrong pattern or direction, object that is not there, and wrong neighbour; 0 for a
    description that names no object, in which nothing can be checked.
    """
    by_phrase = {track.phrase: track for track in tracks}
    named = [" ".join(found) for found in _OBJECT.findall(description)]
    patterns, directions = set(_PATTERN.findall(description)), set(_DIRECTION.findall(description))
    neighbours = [(side.capitalize(), f"{colour} {shape}") for side, colour, shape in _NEIGHBOUR.findall(description)]
    wrong = len(patterns - {asked.pattern}) + len(directions - {asked.direction})
    wrong += sum(phrase not in by_phrase for phrase in set(named))
    wrong += sum(
        phrase in by_phrase and (phrase == asked.phrase or by_phrase[phrase].side_of(asked) != side)
        for side, phrase in neighbours
    )
    return {
        "Subject Correspondence": _subject(named[0], asked.phrase) if named else 0,
        "Appearance Description": BEST * (patterns == {asked.pattern}),
        "Temporal Description": BEST * (directions == {asked.direction}),
        "Hallucination Detection": max(0, BEST - COST * wrong) if named else 0,
    }


def _subject(named: str, asked: str) -> int:
    colour, shape = (one == other for one, other in zip(named.split(), asked.split()))
    return BEST if colour and shape else 2 * colour + shape


@contextmanager
def serving(judge: Judge) -> Iterator[str]:
    """Serves the judge through an OpenAI-compatible API on this machine; yields its base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                text = json.dumps(judge.grade(request["messages"][1]["content"]))
                message = {"role": "assistant", "content": text}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                self._send(200, {"object": "chat.completion", "model": MODEL, "choices": [choice]})
            except ValueError as error:
                self._send(400, {"error": {"message": str(error)}})

        def _send(self, status: int, content: dict):
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
