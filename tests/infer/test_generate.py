"""Answers in batches are the answers one by one."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from swim.data.collator import SwimCollator
from swim.data.mixture import load_mixture
from swim.data.settings import DataSettings
from swim.data.tokens import place_in_expanded
from swim.demo.clips import make_demo_data
from swim.infer.generate import generate_answers, generate_tokens, generation_inputs
from swim.video.clip import VisualBudget


@pytest.fixture(scope="module")
def demo(tiny_model_dir, tmp_path_factory):
    """(model, collator, samples of two clips)."""
    data = make_demo_data(tmp_path_factory.mktemp("clips"), train_clips=2, held_out_clips=0, workers=1)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model_dir).eval()
    processor = AutoProcessor.from_pretrained(tiny_model_dir)
    collator = SwimCollator(processor, model.config, DataSettings(budget=VisualBudget(min_pixels=784)))
    return model, collator, [collator.reader(row) for row in load_mixture(data.train_config).dataset]


def test_answers_are_the_greedy_continuation_of_the_prompt(demo):
    model, collator, samples = demo
    processor = collator.processor
    tokens = list(generate_tokens(model, collator, samples, batch_size=4, max_new_tokens=5))
    answers = list(generate_answers(model, collator, samples, batch_size=4, max_new_tokens=5))
    assert len(answers) == len(tokens) == len(samples)
    for sample, answer, answer_tokens in zip(samples, answers, tokens):
        batch = collator([sample])
        prompt = int((batch["labels"][0] != -100).nonzero()[0])  # the answer starts here
        ids = batch["input_ids"][:, :prompt]
        for _ in range(5):
            with torch.no_grad():
                logits = model(
                    input_ids=ids,
                    pixel_values_videos=batch["pixel_values_videos"],
                    video_grid_thw=batch["video_grid_thw"],
                    mm_token_type_ids=(ids == model.config.video_token_id) * 2,
                    second_per_grid_ts=torch.tensor([1.0]),
                ).logits
            ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
            if int(ids[0, -1]) in model.generation_config.eos_token_id:
                break
        assert answer == processor.tokenizer.decode(ids[0, prompt:], skip_special_tokens=True).strip()
        made = ids[0, prompt:].tolist()
        assert answer_tokens == (made[:-1] if made[-1] in model.generation_config.eos_token_id else made)


def test_the_answers_tokens_end_before_the_end_of_the_turn(demo):
    """A model of which every answer is "<the first token> <end of turn>"."""
    model, collator, samples = demo
    first, end = collator.processor.tokenizer.convert_tokens_to_ids(["The", "<|im_end|>"])
    steps = []

    def speak(module, args, output):
        output[:, -1] = -1.0
        output[:, -1, end if steps else first] = 1.0
        steps.append(1)
        return output

    hook = model.lm_head.register_forward_hook(speak)
    try:
        assert list(generate_tokens(model, collator, samples[:3], max_new_tokens=4)) == [[first]] * 3
    finally:
        hook.remove()


def test_inputs_end_with_the_question_and_know_where_its_words_are(demo):
    _, collator, samples = demo
    inputs = generation_inputs(collator, samples[:2])
    ids, mask = inputs.tensors["input_ids"], inputs.tensors["attention_mask"]
    assert mask[:, -1].all() and all(tensor.device.type == "cpu" for tensor in inputs.tensors.values())
    for number, sample in enumerate(samples[:2]):
        question, chat = sample.record.turns[0].text, inputs.chats[number]
        assert question in chat.text and sample.record.turns[1].text not in chat.text
        start = place_in_expanded(chat.text.index(question), inputs.replacements[number])
        offsets = inputs.offsets[number]
        inside = (offsets[:, 0] >= start) & (offsets[:, 1] <= start + len(question)) & (offsets[:, 1] > offsets[:, 0])
        assert collator.processor.tokenizer.decode(ids[number, inside & mask[number].bool().numpy()]) == question


@pytest.mark.parametrize(("released", "seconds"), [(False, 2.0), (True, 1.0)])
def test_released_timing_makes_a_step_last_a_second(demo, released, seconds):
    """Two frames of two seconds are one step."""
    model, collator, samples = demo
    settings = DataSettings(budget=VisualBudget(max_frames=2, min_pixels=784), released_timing=released)
    collator = SwimCollator(collator.processor, model.config, settings)
    sample = collator.read(replace(samples[0].record, instances=[]))
    assert generation_inputs(collator, [sample]).tensors["second_per_grid_ts"].tolist() == [seconds]
