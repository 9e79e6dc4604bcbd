"""Runs of the command against a real server that plays the model."""

import json

import pytest

from swim.cli.construct import main

from ..chat_server import ChatServer


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")


@pytest.fixture
def write(tmp_path):
    """Function: a file of these records below tmp_path."""

    def make(records: list[dict], name: str = "videorefer-caption.json"):
        path = tmp_path / name
        path.write_text(json.dumps(records))
        return path

    return make


@pytest.fixture
def flags(tmp_path):
    """Function: the command's flags for a server, with short waits; `True` is a bare flag."""

    def make(server: ChatServer, *inputs, output: str = "out", **more) -> list[str]:
        options = {
            "model": "m",
            "base_url": server.url,
            "backoff_s": 0.01,
            "timeout_s": 2,
            "request_attempts": 3,
            **more,
        }
        found = ["--input", *map(str, inputs), "--output", str(tmp_path / output)]
        for name, value in options.items():
            found += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return found

    return make


@pytest.fixture
def run(flags, tmp_path):
    """Function: (status, provenance, refined records of all files in order) of the command against a behaviour.

    All runs of a test ask the same server: replies are kept by its address too.
    """
    with ChatServer(lambda request: "") as server:

        def make(behave, *inputs, output: str = "out", **more):
            server.behave = behave
            status = main(flags(server, *inputs, output=output, **more))
            folder = tmp_path / output
            provenance = json.loads((folder / "provenance.json").read_text())
            records = [r for path in sorted(folder.glob("refined-*.json")) for r in json.loads(path.read_text())]
            return status, provenance, records

        yield make
