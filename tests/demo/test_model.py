"""The tiny model: a complete, offline checkpoint whose tokenizer and template behave like Qwen2.5-VL's."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration
from transformers.video_utils import VideoMetadata

from swim.demo import model as tiny
from swim.demo.clips import demo_texts
from swim.demo.shapes import COLOURS, PATTERNS, SHAPES, _inked

DATA = Path(os.environ.get("SWIM_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
REAL_TOKENIZER = DATA / "qwen_tokenizer"
needs_real_tokenizer = pytest.mark.skipif(
    not (REAL_TOKENIZER / "tokenizer.json").is_file(), reason=f"no real Qwen tokenizer at {REAL_TOKENIZER}"
)

TEXTS = ["", "plain", "A red circle.", "你好，世界：一只狗", "naïve café — Ωμέγα", "🎉👩‍🚀 x"]
TEXTS += ["  two\n\n spaces\t\r\n12345", "<ins>"]
CONVERSATIONS = {
    "video": [
        {"role": "user", "content": [{"type": "video", "video": "x.mp4"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
        {"role": "user", "content": "And now?\n"},
    ],
    "own system prompt": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "  Hi "}]},
    ],
    "system prompt in parts": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "image", "image": "a"}, {"type": "image", "image": "b"}]},
        {"role": "assistant", "content": "Two."},
    ],
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def processor(checkpoint):
    return AutoProcessor.from_pretrained(checkpoint, local_files_only=True)


@pytest.fixture(scope="module")
def real_checkpoint(tmp_path_factory):
    return tiny.build_tiny_model(tmp_path_factory.mktemp("real"), tokenizer_dir=REAL_TOKENIZER)


@pytest.fixture(scope="module")
def real_processor(real_checkpoint):
    return AutoProcessor.from_pretrained(real_checkpoint, local_files_only=True)


def video_inputs(processor, frames=4, side=112):
    """Model inputs of one noisy clip and one question."""
    text = processor.apply_chat_template(CONVERSATIONS["video"][:1], tokenize=False, add_generation_prompt=True)
    clip = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (frames, 3, side, side), np.uint8))
    metadata = VideoMetadata(total_num_frames=frames, fps=2.0, frames_indices=list(range(frames)))
    return processor(text=[text], videos=[clip], video_metadata=[metadata], do_resize=False, return_tensors="pt")


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_survives_a_round_trip(processor, text):
    assert processor.tokenizer.decode(processor.tokenizer(text)["input_ids"]) == text


def test_words_of_the_demo_are_single_tokens(processor):
    words = [*COLOURS, *SHAPES, *PATTERNS, "pattern", "have", "does"]
    assert [word for word in words if len(processor.tokenizer(f" {word}")["input_ids"]) != 1] == []
    assert len(processor.tokenizer("assistant\n")["input_ids"]) == 2


def test_special_tokens_are_never_split_and_have_their_roles(processor):
    tokenizer = processor.tokenizer
    for token in tiny.SPECIAL_TOKENS:
        assert tokenizer(f"a{token}b")["input_ids"][1] == tokenizer.convert_tokens_to_ids(token)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.decode(tokenizer("<|im_start|>a<|im_end|>")["input_ids"], skip_special_tokens=True) == "a"


def test_a_tokenizer_can_be_learnt_from_other_texts():
    tokenizer = tiny.train_tokenizer(["zebra zebra"])
    assert len(tokenizer(" zebra")["input_ids"]) == 1
    assert len(tokenizer(" striped")["input_ids"]) > 1


def test_template_writes_qwens_format(processor):
    written = processor.apply_chat_template(CONVERSATIONS["video"], tokenize=False, add_generation_prompt=True)
    assert written == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>What is it?<|im_end|>\n"
        "<|im_start|>assistant\nA dog.<|im_end|>\n"
        "<|im_start|>user\nAnd now?\n<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@needs_real_tokenizer
@pytest.mark.parametrize("options", [{}, {"add_generation_prompt": True}, {"add_vision_id": True}], ids=str)
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_template_equals_the_real_one(processor, real_processor, name, options):
    both = (processor, real_processor)
    texts = [each.apply_chat_template(CONVERSATIONS[name], tokenize=False, **options) for each in both]
    assert texts[0] == texts[1]


@needs_real_tokenizer
def test_words_split_where_the_real_tokenizer_splits_them(processor, real_processor):
    split = [p.tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str for p in (processor, real_processor)]
    for text in [*TEXTS, "it's 2nd-rate (really)\n\n ok", *list(demo_texts())[:5]]:
        assert split[0](text) == split[1](text)


def test_checkpoint_loads_keeps_its_supervision_and_generates(checkpoint, processor):
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(checkpoint, local_files_only=True).eval()
    assert model.config.attention_supervision == tiny.ATTENTION_SUPERVISION
    assert type(model.config.attention_supervision) is dict
    assert max(tiny.ATTENTION_SUPERVISION["layers"]) < model.config.text_config.num_hidden_layers
    assert model.num_parameters() < 3_000_000
    inputs = video_inputs(processor)
    assert inputs["video_grid_thw"].tolist() == [[2, 8, 8]]
    assert (inputs["input_ids"] == model.config.video_token_id).sum() == 2 * 4 * 4
    first, second = (model.generate(**inputs, max_new_tokens=4) for _ in range(2))
    assert first.shape[1] > inputs["input_ids"].shape[1] and torch.equal(first, second)


def test_frames_below_qwens_floor_keep_their_size(processor):
    """The data path sizes frames; the processor must not enlarge 112 x 112 ones even when it resizes."""
    clip = torch.zeros(2, 3, 112, 112, dtype=torch.uint8)
    assert processor.video_processor([clip], return_tensors="pt")["video_grid_thw"].tolist() == [[1, 8, 8]]


@torch.no_grad()
def share_between_patterns(visual, processor) -> float:
    """Share of the variance of mean features that lies between patterns rather than between their offsets."""
    grid = np.arange(56.0)
    places = [(grid[None] + shift, grid[:, None] + 2 * shift) for shift in range(5)]
    surfaces = [_inked(pattern, x, y) for pattern in PATTERNS for x, y in places]
    clips = [torch.from_numpy(np.where(ink, 20, 200).astype(np.uint8)).expand(2, 3, 56, 56) for ink in surfaces]
    pixels = processor.video_processor(clips, return_tensors="pt", do_resize=False)
    features = visual(pixels["pixel_values_videos"], grid_thw=pixels["video_grid_thw"]).pooler_output
    features = features.view(len(PATTERNS), 5, -1, features.shape[-1]).mean(2)
    return (features.mean(1).var(0, correction=0).sum() / features.flatten(0, 1).var(0, correction=0).sum()).item()


def test_untrained_vision_separates_patterns_better_than_usual_initial_weights(checkpoint, processor):
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(checkpoint, local_files_only=True)
    torch.manual_seed(0)
    usual = Qwen2_5_VLForConditionalGeneration(model.config)
    ours, theirs = (share_between_patterns(each.model.visual, processor) for each in (model, usual))
    assert 1 - ours < 0.7 * (1 - theirs), f"share between patterns: {ours:.2f}, usual weights {theirs:.2f}"


def test_weights_depend_on_the_seed_only(checkpoint, tmp_path):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    weights = {seed: tiny.build_tiny_model(tmp_path / str(seed), seed=seed) / "model.safetensors" for seed in (0, 1)}
    assert torch.equal(torch.get_rng_state(), before)
    assert weights[0].read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    assert weights[1].read_bytes() != weights[0].read_bytes()


@needs_real_tokenizer
def test_real_tokenizer_variant_works(real_checkpoint, real_processor):
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(real_checkpoint, local_files_only=True).eval()
    assert model.config.video_token_id == 151656
    assert model.config.text_config.eos_token_id == 151645
    assert model.get_input_embeddings().num_embeddings >= 151665
    inputs = video_inputs(real_processor)
    assert model.generate(**inputs, max_new_tokens=2).shape[1] > inputs["input_ids"].shape[1]


def test_missing_tokenizer_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="tokenizer.json is missing.*--tokenizer needs a folder"):
        tiny.build_tiny_model(tmp_path / "out", tokenizer_dir=tmp_path)
    assert not (tmp_path / "out").exists()


def test_missing_chat_template_is_named(processor, tmp_path):
    processor.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match="neither chat_template.jinja nor chat_template.json"):
        tiny.load_real_tokenizer(tmp_path)


def test_texts_and_a_ready_tokenizer_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match="not both"):
        tiny.build_tiny_model(tmp_path, tokenizer_dir=tmp_path, texts=["a"])


def test_command_line(tmp_path):
    command = [sys.executable, "-m", "swim", "tiny-model", "--output", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "model.safetensors").is_file() and (tmp_path / "chat_template.jinja").is_file()
