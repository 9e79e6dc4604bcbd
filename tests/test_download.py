"""download.sh against a hub of one's own: what it fetches, what it says, and how it goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swim.cli.download import main
from swim.download import first_of_each_kind

from .hub import Hub

SCRIPT = Path(__file__).resolve().parents[1] / "run_scripts/download.sh"
CAPTIONS = {f"train/caption-{n}.json": json.dumps([{"index": n, "text": "word " * 40_000}]).encode() for n in range(11)}
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
FILES = {
    "datasets/BBBBCHAN/NL-Refer": {"bench/refined-VideoRefer-Bench-D.json": b"[]", "README.md": b"# NL-Refer"},
    "datasets/BBBBCHAN/SWIM_data": CAPTIONS | {"train/qa-0-10k.json": b"[]"},
    "models/BBBBCHAN/SWIM-7B": {"config.json": b"{}", SHARDS[0]: b"1", SHARDS[1]: b"2"},
    "models/Qwen/Qwen2.5-VL-7B-Instruct": {"config.json": b'{"a": 1}'},
}
BENCH = ["data/NL-Refer/README.md", "data/NL-Refer/bench/refined-VideoRefer-Bench-D.json"]
MODELS = [f"models/SWIM-7B/{name}" for name in FILES["models/BBBBCHAN/SWIM-7B"]] + [
    "models/Qwen2.5-VL-7B-Instruct/config.json"
]
TRAIN = [f"data/SWIM_data/{name}" for name in FILES["datasets/BBBBCHAN/SWIM_data"]]


@pytest.fixture
def hub():
    with Hub({name: dict(files) for name, files in FILES.items()}) as hub:
        yield hub


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Function: runs `swim download` against the hub at a URL; output below tmp_path/out."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")

    def run(url: str, *arguments: str, code: str = "from swim.cli.download import main") -> subprocess.CompletedProcess:
        command = [
            sys.executable,
            "-c",
            f"import sys\n{code}\nsys.exit(main())",
            "--dir",
            str(tmp_path / "out"),
            *arguments,
        ]
        return subprocess.run(
            command, env=os.environ | {"HF_ENDPOINT": url}, capture_output=True, text=True, timeout=120
        )

    return run


def there(folder: Path) -> list[str]:
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in files if ".cache" not in path.parts)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], BENCH + TRAIN + MODELS),
        (["--data"], BENCH + TRAIN),
        (["--bench-only"], BENCH),
        (["--model"], MODELS),
        (["--model", "--bench-only"], MODELS + BENCH),
        (["--subset", "2"], BENCH + [TRAIN[0], TRAIN[1], TRAIN[-1]]),
        (["--model", "--data", "--subset", "1"], MODELS + BENCH + [TRAIN[0], TRAIN[-1]]),
    ],
    ids=" ".join,
)
def test_what_is_fetched(hub, run, tmp_path, arguments, expected):
    result = run(hub.url, *arguments)
    assert result.returncode == 0, result.stderr
    assert there(tmp_path / "out") == sorted(expected)
    for name, files in FILES.items():
        for path, content in files.items():
            for found in (tmp_path / "out").glob(f"*/{name.split('/')[-1]}/{path}"):
                assert found.read_bytes() == content


def test_it_says_what_comes_before_it_comes_and_fetches_nothing_twice(hub, run):
    first = run(hub.url, "--data", "--subset", "2")
    hub.requests.clear()
    second = run(hub.url, "--data", "--subset", "3")
    size = len(CAPTIONS["train/caption-0.json"])
    assert (
        f"BBBBCHAN/SWIM_data: 3 files, {(2 * size + 2) / 1e3:,.1f} kB, to fetch {(2 * size + 2) / 1e3:,.1f} kB"
        in first.stdout
    )
    assert (
        f"BBBBCHAN/SWIM_data: 4 files, {(3 * size + 2) / 1e3:,.1f} kB, to fetch {size / 1e3:,.1f} kB" in second.stdout
    )
    assert first.stdout.index("to fetch") < first.stdout.index("free in") < first.stdout.index("complete")
    assert hub.fetched() == ["caption-2.json"]


def test_a_broken_connection_is_told_and_the_same_command_goes_on(hub, run, tmp_path):
    hub.break_after_bytes = 50_000
    broken = run(hub.url, "--data", "--subset", "1")
    assert broken.returncode == 1 and "Traceback" not in broken.stderr
    assert f"error: BBBBCHAN/SWIM_data: no whole answer from {hub.url}" in broken.stderr
    assert "then give the same command again" in broken.stderr
    hub.break_after_bytes = None
    assert run(hub.url, "--data", "--subset", "1").returncode == 0
    assert (tmp_path / "out/data/SWIM_data/train/caption-0.json").read_bytes() == CAPTIONS["train/caption-0.json"]


def test_offline(run, tmp_path, monkeypatch):
    with Hub({}) as gone:
        url = gone.url
    result = run(url, "--bench-only")
    assert result.returncode == 1 and result.stdout == "" and there(tmp_path) == []
    assert (
        result.stderr.startswith(f"error: BBBBCHAN/NL-Refer: no whole answer from {url} (")
        and "HF_ENDPOINT" in result.stderr
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = run(url, "--bench-only")
    assert result.returncode == 1 and "unset HF_HUB_OFFLINE" in result.stderr and "Traceback" not in result.stderr


def test_a_repository_that_is_not_there(hub, run):
    del hub.files["models/BBBBCHAN/SWIM-7B"]
    result = run(hub.url, "--model")
    assert (
        result.returncode == 1
        and result.stderr.startswith("error: BBBBCHAN/SWIM-7B: 404 ")
        and "HF_TOKEN" in result.stderr
    )


def test_a_disk_that_is_too_small(hub, run, tmp_path):
    small = "import shutil\nfrom swim.cli.download import main\nshutil.disk_usage = lambda path: type('Usage', (), {'free': 1000})"
    result = run(hub.url, "--data", code=small)
    assert result.returncode == 1 and "is too small; choose another with --dir" in result.stderr
    assert there(tmp_path / "out") == [] and hub.fetched() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--subset", "0"], "argument --subset: expected a whole number, at least 1, found '0'"),
        (["--subset", "some"], "argument --subset: expected a whole number, at least 1"),
        (["--data", "--bench-only"], "--data and --bench-only: give one of them"),
        (["--weights"], "unrecognized arguments: --weights"),
    ],
)
def test_bad_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2 and message in capsys.readouterr().err


def test_shards():
    names = ["a-10.json", "a-9.json", "b/a-1.json", "qa-0-10k.json", "README.md"]
    assert first_of_each_kind(names, 1) == ["README.md", "a-9.json", "b/a-1.json", "qa-0-10k.json"]
    assert first_of_each_kind(names, 2) == ["README.md", "a-9.json", "a-10.json", "b/a-1.json", "qa-0-10k.json"]
    assert first_of_each_kind([], 1) == []


def test_the_script_passes_on_what_it_is_given(hub, tmp_path, run):
    """The real script over a stand-in for setup.sh, which would install."""
    (tmp_path / "repository/run_scripts").mkdir(parents=True)
    script = tmp_path / "repository/run_scripts/download.sh"
    script.write_text(SCRIPT.read_text())
    setup = f'SWIM_ROOT="{tmp_path}/repository"\nSWIM_PYTHON="{sys.executable}"\n'
    (tmp_path / "repository/setup.sh").write_text(setup)
    environment = os.environ | {"HF_ENDPOINT": hub.url}
    result = subprocess.run(
        ["bash", str(script), "--bench-only"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert there(tmp_path / "repository/data") == sorted(name.removeprefix("data/") for name in BENCH)
    assert subprocess.run(["bash", "-n", str(SCRIPT)]).returncode == 0
