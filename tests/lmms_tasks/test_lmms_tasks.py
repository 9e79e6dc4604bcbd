"""The tasks for lmms-eval give the driver's own scores; the slow test runs lmms-eval itself."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from swim.data.bench import parse_bench_q
from swim.demo.bench import write_benches
from swim.demo.clips import make_demo_data
from swim.errors import DataError
from swim.eval.items import read_items
from swim.eval.judge import DIMENSIONS
from swim.eval.scores_q import score_items, summarise
from swim.lmms_tasks import utils
from swim.lmms_tasks.__main__ import TASKS_FOLDER, prepare_items
from swim.models import MODEL_TYPES

from ..chat_server import ChatServer

REPOSITORY = Path(__file__).resolve().parents[2]
GOOD = dict(zip(DIMENSIONS, (4, 3, 2, 5)))


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    return write_benches(make_demo_data(tmp_path_factory.mktemp("bench"), 0, 3, workers=1).held_out_json)


@pytest.fixture
def environment(benches, monkeypatch):
    monkeypatch.setenv("VIDEOREFER_BENCH_Q", str(benches.bench_q))
    monkeypatch.setenv("VIDEOREFER_BENCH_D", str(benches.bench_d))
    monkeypatch.delenv("VIDEOREFER_ROOT", raising=False)


def prepared(task: str, folder: Path) -> list[dict]:
    prepare_items(task, folder)
    return [json.loads(line) for line in (folder / f"{task}.jsonl").read_text().splitlines()]


def test_items_and_scores_are_the_drivers(benches, environment, tmp_path):
    docs = prepared("videorefer_bench_q", tmp_path)
    file = read_items(benches.bench_q, None, parse_bench_q)
    assert [doc["id"] for doc in docs] == list(file.items)
    assert utils.text(docs[0]) == next(iter(file.items.values())).prompt().replace("<ins>", "").replace("</ins>", "")
    assert all(Path(path).exists() and Path(path).is_absolute() for doc in docs for path in utils.video(doc))
    answers = {doc["id"]: f"({'ABCD'[number % 4]})" for number, doc in enumerate(docs)}
    answered = [utils.results_q(doc, [answers[doc["id"]] + "\n"])["accuracy"] for doc in docs]
    assert utils.accuracy(answered) == summarise(score_items(file.items, answers))["micro"] > 0


def test_judged_mean_is_refused_when_an_item_fails(environment, tmp_path, monkeypatch):
    docs = prepared("videorefer_bench_d", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    answered = [utils.results_d(doc, [f"answer {doc['id']}"])["judged_mean"] for doc in docs]
    replies = ["prose"] * 3
    with ChatServer(
        lambda request: replies.pop() if replies and "answer 1" in str(request) else json.dumps(GOOD)
    ) as server:
        monkeypatch.setenv("SWIM_JUDGE_BASE_URL", server.url)
        assert utils.judged_mean(answered) == "refused"
        assert utils.judged_mean([entry for entry in answered if entry["id"] != "1"]) == 3.5


def test_a_missing_file_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("VIDEOREFER_BENCH_Q", raising=False)
    with pytest.raises(DataError, match="VIDEOREFER_BENCH_Q is not set"):
        prepare_items("videorefer_bench_q", tmp_path)
    monkeypatch.setenv("VIDEOREFER_BENCH_Q", str(tmp_path / "none.json"))
    with pytest.raises(DataError, match="none.json: no such file; fix VIDEOREFER_BENCH_"):
        prepare_items("videorefer_bench_q", tmp_path)


def test_the_yaml_files_name_functions_that_exist():
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: getattr(utils, node.value.removeprefix("utils.")))
    for path in TASKS_FOLDER.glob("*.yaml"):
        task = yaml.load(path.read_text(), Loader)
        assert task["task"] == path.stem and callable(task["process_results"])
        assert task["dataset_kwargs"]["data_files"] == {"test": f"{path.stem}.jsonl"}


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_lmms_eval_gives_our_score(benches, tiny_model_dirs, tmp_path, model_type):
    """Both tasks, four items each, on a CPU, in lmms-eval's own environment (made when missing)."""
    with ChatServer(lambda request: json.dumps(GOOD)) as server:
        variables = {
            "VIDEOREFER_BENCH_Q": str(benches.bench_q),
            "VIDEOREFER_BENCH_D": str(benches.bench_d),
            "SWIM_JUDGE_BASE_URL": server.url,
            "OPENAI_API_KEY": "x",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        command = [
            "bash",
            str(REPOSITORY / "run_scripts/eval/lmms_eval.sh"),
            "--model",
            str(tiny_model_dirs[model_type]),
        ]
        command += ["--tasks", "videorefer_bench_q,videorefer_bench_d", "--limit", "4", "--device", "cpu"]
        command += ["--max_frames", "4", "--min_pixels", "784", "--max_pixels", "28224", "--output", str(tmp_path)]
        done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = tmp_path.glob("results/**/*_results.json")
    scores = json.loads(results.read_text())["results"]
    (samples,) = tmp_path.glob("results/**/*_samples_videorefer_bench_q.jsonl")
    answers = {}
    for line in samples.read_text().splitlines():
        answered = json.loads(line)["accuracy"]
        answers[answered["id"]] = answered["answer"]
    file = read_items(benches.bench_q, None, parse_bench_q, limit=4)
    assert len(answers) == 4
    assert scores["videorefer_bench_q"]["accuracy,none"] == summarise(score_items(file.items, answers))["micro"]
    assert scores["videorefer_bench_d"]["judged_mean,none"] == 3.5
