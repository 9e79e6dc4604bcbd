"""GRPO: what the policy sees, what it says of its tokens, and what its loss is made of."""

import copy
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from trl import GRPOConfig, GRPOTrainer

from swim.data.collator import SwimCollator
from swim.data.mixture import load_mixture
from swim.data.records import Record, Turn
from swim.data.sample import TextSample
from swim.data.settings import DataSettings
from swim.models import MODEL_TYPES
from swim.models.supervision import encode_vision
from swim.train.grpo import SwimGRPOTrainer
from swim.train.parameters import choose_parts
from swim.train.rollouts import completion_instances, read_prompts
from swim.video.clip import VisualBudget

from ..video.clips import write_video

SETTINGS = DataSettings(VisualBudget(4, 784, 28224), system_prompt="Look.")
SIDE = 168
TEXT = "text alone"
POLYGON = [[40, 40, 120, 40, 120, 120, 40, 120]]


def record_of(index: str, question: str, answer: str, **visual) -> dict:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"index": index, "conversations": turns, **visual}


class WithText(SwimGRPOTrainer):
    def _sample(self, row, again=False):
        if TEXT not in row["record"]:
            return super()._sample(row, again)
        question = "What is a much longer question than the others, with no picture at all?"
        turns = [Turn("user", question, [], []), Turn("assistant", "A.", [], [])]
        return TextSample(Record("text", None, False, turns, []))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, demo_data):
    """Rows of a video, an image and one that `WithText` reads as text alone."""
    folder = tmp_path_factory.mktemp("mixed")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(folder / "i.png")
    clip = json.loads(demo_data.train_json.read_text())[0]
    clip["video"] = str(demo_data.data_root / clip["video"])
    image = record_of("b", "Where is the <ins>thing</ins>?", "Here.", image="i.png")
    image["annotation"] = [{"0": {"segmentation": POLYGON}}]
    return rows_of(folder, [clip, image, {**image, "index": TEXT}])


def rows_of(folder, records: list[dict]):
    (folder / "records.json").write_text(json.dumps(records))
    (folder / "mixture.yaml").write_text(json.dumps({"datasets": [{"json_path": "records.json"}]}))
    return load_mixture(folder / "mixture.yaml").dataset


@pytest.fixture
def make(tiny_model_dirs, tmp_path):
    """Function: a trainer of these rows and rewards, the vision tower frozen."""

    def trainer(rows, reward, model_type=MODEL_TYPES[0], weight=0.0, kind=WithText, **arguments):
        folder = tiny_model_dirs[model_type]
        model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
        choose_parts(model, ["language_model"])
        ours = {"collator": SwimCollator(processor, model.config, SETTINGS), "mask_loss_weight": weight}
        args = {
            "use_cpu": True,
            "per_device_train_batch_size": 6,
            "gradient_accumulation_steps": 1,
            "num_generations": 2,
            "max_completion_length": 5,
            "max_steps": 2,
            "logging_steps": 1,
            "report_to": [],
            "remove_unused_columns": False,
            "activation_checkpointing": False,
            "bf16": False,
            "save_strategy": "no",
            "disable_tqdm": True,
            **arguments,
        }
        return kind(
            model=model,
            reward_funcs=reward,
            args=GRPOConfig(str(tmp_path / "out"), **args),
            train_dataset=rows,
            processing_class=processor,
            **(ours if kind is WithText else {}),
        )

    return trainer


def length(completions, **_):
    return [float(len(completion[0]["content"])) for completion in completions]


def nothing(completions, **_):
    return [0.0] * len(completions)


def rollout(trainer, rows) -> dict:
    """A scored batch of completions, two of each row, in order."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    torch.manual_seed(0)
    return trainer._generate_and_score_completions([row for row in rows for _ in range(2)])


def loss_and_gradients(trainer, inputs, compute=None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    trainer.model.zero_grad()
    loss = (compute or trainer._compute_loss)(trainer.model, inputs)
    loss.backward()
    found = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
    return loss.detach(), found


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_log_probabilities_are_those_of_a_plain_forward(make, mixed, model_type):
    """Left-padded groups of video, image and text, against the stock path of the same model with pixels, one by one."""
    trainer = make(mixed, length, model_type, temperature=0.7)
    output = rollout(trainer, mixed)
    ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
    mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
    kept = output["completion_ids"].shape[1]
    trainer._sequences = output["sequence"].tolist()
    found, entropies, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model, ids, mask, kept, batch_size=4, compute_entropy=True
    )
    assert (output["prompt_mask"] == 0).any() and found.shape == entropies.shape == output["completion_mask"].shape
    collator, model = trainer.collator, trainer.model.eval()
    for number in range(len(ids)):
        sample = trainer._sample(mixed[number // 2])
        text = collator.render(sample.record, add_generation_prompt=True).text
        inputs = dict(collator.encode([sample], [text]).inputs)
        real = output["completion_mask"][number] == 1
        drawn = output["completion_ids"][number][real]
        start = inputs["input_ids"].shape[1]
        assert torch.equal(inputs["input_ids"][0], output["prompt_ids"][number][output["prompt_mask"][number] == 1])
        inputs["input_ids"] = torch.cat([inputs["input_ids"], drawn[None]], dim=1)
        inputs["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, len(drawn)))
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.no_grad():
            logits = model(**inputs).logits[0, start - 1 : -1] / 0.7
        every = logits.log_softmax(-1)
        expected = every.gather(1, drawn[:, None])[:, 0]
        torch.testing.assert_close(found[number][real], expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(entropies[number][real], -(every.exp() * every).sum(-1), rtol=0, atol=1e-4)
        assert not found[number][~real].any()


def test_loss_and_gradients_are_trls_on_images(make, mixed):
    """The same completions scored by TRL's own image path, with pixels; mask_loss_weight is 0."""
    images = mixed.select([1])
    trainer = make(images, length, beta=0.1, per_device_train_batch_size=2)
    output = rollout(trainer, images)
    output["advantages"] = torch.tensor([1.0, -0.5])
    ours = loss_and_gradients(trainer, copy.copy(output))
    sample = trainer.collator.read(images[0])
    text = trainer.collator.render(sample.record, add_generation_prompt=True).text
    encoded = trainer.collator.encode([sample, sample], [text, text]).inputs
    kinds = torch.nn.functional.pad(encoded["mm_token_type_ids"], (0, output["completion_ids"].shape[1]))
    pixels = {"pixel_values": encoded["pixel_values"], "image_grid_thw": encoded["image_grid_thw"]}
    as_trl = {**output, **pixels, "mm_token_type_ids": kinds, "num_images": [1, 1]}
    stock = make(mixed, length, kind=GRPOTrainer, beta=0.1, per_device_train_batch_size=2)
    stock.current_gradient_accumulation_steps = 1
    theirs = loss_and_gradients(stock, as_trl)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-6)
    assert ours[1].keys() == theirs[1].keys() and any(gradient.any() for gradient in ours[1].values())
    for name, gradient in theirs[1].items():
        torch.testing.assert_close(ours[1][name], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_tower_sees_each_prompt_once_a_step(make, mixed, model_type):
    """Whatever the number of completions, and although generation, policy and reference model all look."""
    trainer = make(mixed, length, model_type, weight=0.5, beta=0.1)
    patches = []
    for model in (trainer.model, trainer.ref_model):
        visual = model.model.visual
        visual.register_forward_hook(lambda module, args, output: patches.append(args[0].shape[0]))
    trainer.train()
    cells = {"qwen2_5_vl": 12 * 12, "qwen3_vl": 10 * 10}[model_type]
    assert patches == [cells + 2 * cells] * 2  # two steps of one image and a video of two temporal steps


def test_equal_rewards_teach_exactly_nothing(make, mixed):
    trainer = make(mixed, nothing)
    loss, gradients = loss_and_gradients(trainer, rollout(trainer, mixed))
    assert float(loss) == 0.0 and all(not gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_mask_loss_is_a_term_of_its_own(make, mixed, model_type):
    plain, masked = make(mixed, length, model_type), make(mixed, length, model_type, weight=0.25)
    output = rollout(plain, mixed)
    masked._prompts = plain._prompts
    masked.current_gradient_accumulation_steps = 1
    masked.model.train()
    without, _ = loss_and_gradients(plain, copy.copy(output))
    with_term, gradients = loss_and_gradients(masked, copy.copy(output))
    batch = plain.collator([plain._sample(row) for row in mixed for _ in range(2)])
    batch["ins_contents_labels"][batch["labels"] != -100] = -100  # the question's nouns alone
    with torch.no_grad():
        expected = masked.model(**batch).mask_loss
    torch.testing.assert_close(with_term - without, 0.25 * expected, rtol=1e-4, atol=1e-6)
    assert any(gradient.any() for gradient in gradients.values())
    assert masked._metrics["train"]["mask_loss"][-1] == pytest.approx(float(expected), rel=1e-4)
    assert 0 <= masked._metrics["train"]["pointing"][-1] <= 1


def test_the_answer_can_only_be_right_if_pixels_arrive(make, tmp_path):
    """One question, two clips; which half of the vocabulary is right depends on the clip. Blind, half is the most."""
    for name, colour in (("dark", 20), ("bright", 230)):
        write_video(tmp_path / f"{name}.mp4", np.full((4, SIDE, SIDE, 3), colour, np.uint8))
    records = [record_of(f"videorefer_qa_{name}", "Is it?", name, video=f"{name}.mp4") for name in ("dark", "bright")]

    def half(completion_ids, prompt_of, **_):
        wanted = [prompt.answer == "bright" for prompt in prompt_of]
        return [float(ids[0] % 2 == odd) for ids, odd in zip(completion_ids, wanted)]

    arguments = {"num_generations": 12, "per_device_train_batch_size": 24, "max_completion_length": 1, "max_steps": 40}
    trainer = make(rows_of(tmp_path, records), half, learning_rate=2e-3, lr_scheduler_type="constant", **arguments)
    trainer.train()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert np.mean(rewards[:3]) < 0.75 and np.mean(rewards[-5:]) > 0.9


def test_tokens_of_a_completion_that_name_the_object_are_exact(real_processor_dirs, tmp_path):
    folder = real_processor_dirs[MODEL_TYPES[0]]
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "i.png")
    record = record_of("b", "Where is the <ins>red dog</ins> with a <ins>cat</ins>?", "Here.", image="i.png")
    record["annotation"] = [{"0": {"segmentation": POLYGON}}] * 2
    collator = SwimCollator(processor, AutoConfig.from_pretrained(folder), SETTINGS)
    (prompt,) = read_prompts(partial(encode_vision, model), collator, [collator.read(rows_of(tmp_path, [record])[0])])
    assert prompt.phrases == {"red dog": 0, "cat": 1}
    assert processor.tokenizer.decode(np.array(prompt.tokens)[prompt.named == 0]) == " red dog"
    text = "The red dog, a catalogue and a cat; Red dog."
    drawn = [*processor.tokenizer(text)["input_ids"], processor.tokenizer.eos_token_id]
    named = completion_instances(processor.tokenizer, prompt, drawn)
    assert [processor.tokenizer.decode(np.array(drawn)[named == instance]) for instance in (0, 1)] == [
        " red dog",
        " cat",
    ]
    assert len(named) == len(drawn) and (completion_instances(processor.tokenizer, prompt, []) == []).all()


def test_a_reward_on_looking_is_the_share_on_the_object(make, mixed):
    """As the fork's own sums have it for the completion's nouns; a completion without any gets 0, text alone nothing."""
    trainer = make(mixed, length)
    rollout(trainer, mixed)
    tokenizer = trainer.collator.processor.tokenizer
    (phrase,) = trainer._prompts[0].phrases
    says = [tokenizer(text)["input_ids"] for text in (f"The {phrase} is plain.", "No idea.", "A thing", "x", "a", "b")]
    found = trainer.looks(says)
    assert found[1] == found[3] == 0.0 and found[4] is found[5] is None and 0 < found[2] < 1
    sample = trainer._prompts[0].sample
    turns = [
        sample.record.turns[0],
        replace(sample.record.turns[1], text=f"The {phrase} is plain.", spans=[], instances=[]),
    ]
    batch = trainer.collator([replace(sample, record=replace(sample.record, turns=turns))])
    named = completion_instances(tokenizer, trainer._prompts[0], says[0])
    start = int((batch["labels"][0] != -100).nonzero()[0])
    batch["ins_contents_labels"][:] = -100
    batch["ins_contents_labels"][0, start : start + len(named)] = torch.from_numpy(named)
    with torch.no_grad():
        grounding = trainer.model(**batch).grounding
    assert found[0] == pytest.approx(float(grounding[1] / grounding[3]), rel=1e-4)


def test_vllm_is_refused_before_anything_runs(make, mixed):
    with pytest.raises((ValueError, ImportError), match="vllm|vLLM"):
        make(mixed, length, use_vllm=True)
