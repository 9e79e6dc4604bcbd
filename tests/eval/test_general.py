"""General ability: perplexities against a forward of its own, marks by hand, two models from the file to the report."""

import json
import math

import pytest
import torch
from transformers import AutoProcessor

from swim.cli import general as command
from swim.data.collator import TARGETS, SwimCollator
from swim.data.settings import DataSettings
from swim.demo.model import build_tiny_model
from swim.errors import DataError
from swim.eval import general
from swim.eval.items import read_items
from swim.models.load import load_weights

from .conftest import read_lines

SYSTEM = "You describe the named object."
CHAT = {"question": "What pattern does it have?", "answer": "The cyan circle striped"}
BUDGET = ["--max_frames", "4", "--min_pixels", "784", "--max_pixels", "28224", "--max_new_tokens", "6"]


@pytest.mark.parametrize(
    "answer, right",
    [("Seven days.", True), ("There are 7", True), ("Seventeen days, or 70", False), ("", False), ("a SEVEN", True)],
)
def test_an_answer_is_right_when_it_contains_a_word_that_is_accepted(answer, right):
    item = general.parse_general({**CHAT, "accept": ["seven", "7"]}, "item 0", ".")
    assert item.accepts(answer) is right


def test_the_shipped_chat_accepts_its_own_answers():
    items = read_items(general.PLAIN_CHAT, None, general.parse_general).items
    assert len(items) == 30
    assert all(item.accepts(item.record.turns[1].text) for item in items.values())


@torch.no_grad()
def test_perplexity_is_that_of_the_answer_and_its_end(tiny_model_dir, tmp_path):
    (tmp_path / "chat.json").write_text(json.dumps([CHAT]))
    options = ["--questions", str(tmp_path / "chat.json"), "--output", str(tmp_path / "out"), *BUDGET]
    assert command.main(["--model", str(tiny_model_dir), "--system_prompt", SYSTEM, *options]) == 0
    processor, model = AutoProcessor.from_pretrained(tiny_model_dir), load_weights(tiny_model_dir).eval()
    asked = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{CHAT['question']}<|im_end|>\n<|im_start|>assistant\n"
    before = processor.tokenizer(asked, add_special_tokens=False)["input_ids"]
    whole = processor.tokenizer(f"{asked}{CHAT['answer']}<|im_end|>", add_special_tokens=False, return_tensors="pt")
    ids = whole["input_ids"]
    losses = -model(**whole).logits[0, :-1].float().log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    losses = losses[len(before) - 1 :]
    [item] = read_lines(tmp_path / "out" / "items.jsonl")
    assert item["tokens"] == len(losses) and item["right"] is None
    assert item["nll"] == pytest.approx(float(losses.sum()), rel=1e-4)  # float32, other kernels for other shapes
    report = json.loads((tmp_path / "out" / "report.json").read_text())["by_type"]["plain chat"]
    assert report["perplexity"] == pytest.approx(math.exp(losses.mean()), rel=1e-4) and report["accuracy"] is None


@torch.no_grad()
def test_a_clips_perplexity_is_the_training_loss_of_its_record(benches, tiny_model_dir, tmp_path):
    """The collator's forward with labels alone: the mean over the same tokens."""
    file = read_items(benches.general, None, general.parse_general)
    options = ["--questions", str(benches.general), "--output", str(tmp_path / "out"), *BUDGET]
    assert command.main(["--model", str(tiny_model_dir), *options]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    settings = DataSettings(budget=_budget(report["data"]), keep_annotated_frames=False)
    model = load_weights(tiny_model_dir).eval()
    collator = SwimCollator(AutoProcessor.from_pretrained(tiny_model_dir), model.config, settings)
    for item, scored in zip(file.items.values(), read_lines(tmp_path / "out" / "items.jsonl")):
        batch = collator([collator.read(item.record)])
        inputs = {name: value for name, value in batch.items() if name not in TARGETS}
        assert "pixel_values_videos" in inputs and scored["type"] == "whole clip"
        expected = model(**inputs, labels=batch["labels"]).loss
        assert scored["nll"] / scored["tokens"] == pytest.approx(float(expected), rel=1e-4)


def _budget(data: dict):
    return type(DataSettings().budget)(**data["budget"])


def test_models_stand_side_by_side_and_nothing_is_asked_twice(benches, tiny_model_dir, tmp_path, capsys):
    other, output = build_tiny_model(tmp_path / "other", seed=1), tmp_path / "out"
    items = json.loads(benches.general.read_text())
    items = [{**item, "video": str(benches.general.parent / item["video"])} for item in items]
    mixed = [*items, {**CHAT, "id": "chat", "accept": ["striped"]}, {**items[0], "id": "lost", "video": "nowhere.mp4"}]
    (tmp_path / "mixed.json").write_text(json.dumps(mixed))
    options = ["--model", str(other), str(tiny_model_dir), "--questions", str(tmp_path / "mixed.json")]
    options += ["--output", str(output), *BUDGET]
    assert command.main(options) == 1
    told = capsys.readouterr().out
    assert all(
        word in told for word in ("other", tiny_model_dir.name, "plain chat: right, %", "whole clip: perplexity")
    )
    assert "item lost: " in told and "nowhere.mp4" in told
    report = json.loads((output / "other" / "report.json").read_text())
    assert report["unanswered"] == 1 and list(report["errors"]) == ["lost"]
    assert {kind: score["items"] for kind, score in report["by_type"].items()} == {"whole clip": 3, "plain chat": 1}
    before = (output / "other" / "answers.jsonl").read_text()
    assert command.main(options) == 1  # the lost one is looked for again, the others are not asked
    assert (output / "other" / "answers.jsonl").read_text() == before


@pytest.mark.parametrize(
    "change, words",
    [
        ({"answer": ""}, "answer"),
        ({"question": None}, "question"),
        ({"accept": "Paris"}, "accept"),
        ({"type": 3}, "type"),
    ],
)
def test_an_item_that_does_not_fit_is_named(change, words):
    with pytest.raises(DataError, match=rf"^chat.json, item 4 \(7\): {words}"):
        general.parse_general({"id": 7, **CHAT, **change}, "chat.json, item 4", ".")
