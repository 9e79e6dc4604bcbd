"""Answers in batches are the answers one by one."""

import torch
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from swim.data.collator import SwimCollator
from swim.data.mixture import load_mixture
from swim.data.sample import DataSettings
from swim.data.video import VisualBudget
from swim.demo.clips import make_demo_data
from swim.infer.generate import generate_answers


def test_answers_are_the_greedy_continuation_of_the_prompt(tiny_model_dir, tmp_path):
    data = make_demo_data(tmp_path, train_clips=2, held_out_clips=0, workers=1)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model_dir).eval()
    processor = AutoProcessor.from_pretrained(tiny_model_dir)
    collator = SwimCollator(processor, model.config, DataSettings(budget=VisualBudget(min_pixels=784)))
    samples = [collator.reader(row) for row in load_mixture(data.train_config).dataset]
    answers = list(generate_answers(model, collator, samples, batch_size=4, max_new_tokens=5))
    assert len(answers) == len(samples)
    for sample, answer in zip(samples, answers):
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
