"""What is optimised, logged, saved and resumed."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from swim.attention.grounding import score_grounding
from swim.data.collator import SwimCollator
from swim.data.records import parse_record
from swim.models.qwen2_5_vl import FAMILY
from swim.train.config import ConfigError
from swim.train.run import train

from .conftest import log_entries, weights


def test_the_gradient_is_that_of_the_forks_loss(configure, make_trainer):
    trainer = make_trainer(configure(**{"attention_supervision.text_loss_weight": 0.0}))
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    trainer.model.train()
    trainer.compute_loss(trainer.model, dict(batch)).backward()
    got = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
    trainer.model.zero_grad()
    trainer.model(**batch).mask_loss.backward()
    assert got
    for name, parameter in trainer.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(got[name], parameter.grad, msg=name)
    assert got["model.language_model.layers.1.self_attn.q_proj.weight"].abs().max() > 0


def test_accumulation_is_the_mean_of_its_micro_batches(configure):
    options = {"optim": "sgd", "learning_rate": 0.1, "max_steps": 1, "max_grad_norm": 0}
    whole = train_weights(configure("whole", per_device_train_batch_size=4, **options))
    parts = train_weights(configure("parts", per_device_train_batch_size=1, gradient_accumulation_steps=4, **options))
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-4, atol=1e-6, msg=name)


def train_weights(config):
    train(config)
    return weights(Path(config.output_dir))


def test_logs_and_frozen_tower(configure, tiny_model_dir):
    config = configure(**{"attention_supervision.text_loss_weight": 0.5})
    summary = train(config)
    folder = Path(config.output_dir)
    logged = log_entries(folder, "text_loss")
    assert [entry["step"] for entry in logged] == [1, 2]
    for entry in logged:
        assert entry["loss"] == pytest.approx(0.5 * entry["text_loss"] + entry["mask_loss"], rel=1e-3)
        # 4 samples, each with 4 noun tokens and 2 steps
        assert entry["pairs"] + entry["pairs_left_out"] == 4 * 4 * 2
        assert 0 <= entry["pointing"] <= 1 and 0 <= entry["inside"] <= 1
    assert summary["steps"] == 2
    before, after = weights(tiny_model_dir), weights(folder)
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert "model" in changed and "visual" not in changed  # a saved checkpoint has the released names
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    assert model.config.attention_supervision["text_loss_weight"] == 0.5


def test_several_losses_are_logged_by_name(configure):
    options = {"attention_supervision.loss": {"bce": 1.0, "dice": 0.5}, "max_steps": 2, "logging_steps": 1}
    folder = Path(configure(**options).output_dir)
    train(configure(**options))
    for entry in log_entries(folder, "text_loss"):
        assert entry["mask_loss"] == pytest.approx(entry["mask_loss/bce"] + 0.5 * entry["mask_loss/dice"], rel=1e-4)
        assert 0 < entry["mask_loss/dice"] < 1


@pytest.mark.parametrize("parts", ["visual", "merger", "language_model,merger", "visual,merger,language_model"])
def test_only_the_named_parts_learn(configure, tiny_model_dir, parts):
    before, after = weights(tiny_model_dir), train_weights(configure(train=parts, max_steps=1))
    changed = {FAMILY.part_of(name) for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(parts.split(","))


def test_parts_have_their_own_learning_rates(configure, make_trainer):
    rates = {"merger": 1e-5, "visual": 3e-6}
    config = configure(train="visual,merger,language_model", learning_rates=json.dumps(rates), weight_decay=0.1)
    trainer = make_trainer(config)
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    optimizer = trainer.create_optimizer()
    learnt = {name for group in optimizer.param_groups for name in (names[id(p)] for p in group["params"])}
    assert learnt == set(names.values())
    for group in optimizer.param_groups:
        parts = {FAMILY.part_of(names[id(parameter)]) for parameter in group["params"]}
        assert len(parts) == 1 and group["lr"] == rates.get(parts.pop(), trainer.args.learning_rate)
        for parameter in group["params"]:
            if parameter.ndim > 1 or names[id(parameter)].endswith("bias"):
                assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": "head"}, "train.0: Input should be 'language_model', 'merger' or 'visual'"),
        ({"train": "[]"}, "expected at least one part"),
        ({"train": "merger", "lora.r": 4}, "LoRA trains the language_model alone"),
        ({"learning_rates": "{merger: 1.0e-5}"}, "merger is frozen; add it to train"),
        ({"learning_rates": "{language_model: -1}"}, "greater than 0"),
    ],
)
def test_parts_that_do_not_fit_are_named(configure, changes, message):
    with pytest.raises(ConfigError, match=message):
        configure(**changes)


def test_a_finished_run_is_left_alone_and_another_refused(configure, capsys):
    config = configure()
    first = train(config)
    assert train(config) == first
    assert "finished after 2 steps: nothing to do" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="different: learning_rate, seed. Choose another --output_dir"):
        train(configure(learning_rate=0.5, seed=9))


def test_lora_trains_the_language_model_alone(configure):
    config = configure(**{"lora.r": 2})
    train(config)
    folder = Path(config.output_dir)
    adapter = load_file(folder / "adapter_model.safetensors")
    assert adapter and all("language_model" in name for name in adapter)
    assert any(tensor.abs().max() > 0 for name, tensor in adapter.items() if "lora_B" in name)
    for place in (folder, folder / "checkpoint-2"):
        assert json.loads((place / "attention_supervision.json").read_text())["layers"] == [1, 2]


def test_checkpointing_changes_no_gradient(configure):
    options = {"optim": "sgd", "learning_rate": 0.1, "max_steps": 1}
    plain = train_weights(configure("plain", **options))
    checkpointed = train_weights(configure("checkpointed", activation_checkpointing=True, **options))
    for name in plain:
        torch.testing.assert_close(checkpointed[name], plain[name], rtol=1e-5, atol=1e-7, msg=name)


def test_grounding_is_evaluated_while_training(configure, demo_data):
    """The scores of a held-out file after the last step are those of the saved model."""
    config = configure(max_steps=4, eval_grounding=demo_data.held_out_json, save_steps=2)
    train(config)
    evaluated = log_entries(config.output_dir, "eval_pointing")
    assert [entry["step"] for entry in evaluated] == [2, 4]
    assert [entry["step"] for entry in log_entries(config.output_dir, "pointing")] == [1, 2, 3, 4]
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(config.output_dir).eval()
    collator = SwimCollator(AutoProcessor.from_pretrained(config.output_dir), model.config, config.data_settings)
    raws = json.loads(demo_data.held_out_json.read_text())
    records = [parse_record(raw, "a record", demo_data.held_out_json.parent) for raw in raws]
    scores = score_grounding(model, collator, [collator.read(record) for record in records])
    last = evaluated[-1]
    assert (last["eval_pairs"], last["eval_pairs_left_out"]) == (scores.pairs, scores.left_out)
    assert last["eval_pointing"] == pytest.approx(scores.pointing)
    assert last["eval_inside"] == pytest.approx(scores.inside, rel=1e-4)
    assert evaluated[0]["eval_mask_loss"] != last["eval_mask_loss"] > 0
