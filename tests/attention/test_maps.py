"""Maps of words against eager attention's own numbers, and the places of words among tokens."""

import copy
import json

import pytest
import torch
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from swim.attention import extract
from swim.attention.maps import fuse, read_words
from swim.data.collator import SwimCollator
from swim.data.records import parse_record
from swim.data.settings import DataSettings
from swim.demo.clips import make_demo_data
from swim.infer.generate import generate_tokens
from swim.video.clip import VisualBudget

from ..transformers.inputs import Spec, make_batch

SETTINGS = DataSettings(VisualBudget(max_frames=4, min_pixels=784, max_pixels=28224), keep_annotated_frames=False)


def load(folder, attention="sdpa"):
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, attn_implementation=attention).eval()


@pytest.fixture(scope="module")
def model(tiny_model_dir):
    return load(tiny_model_dir)


@pytest.fixture(scope="module")
def collator(model, tiny_model_dir):
    return SwimCollator(AutoProcessor.from_pretrained(tiny_model_dir), model.config, SETTINGS)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return make_demo_data(tmp_path_factory.mktemp("demo"), train_clips=0, held_out_clips=1, workers=1).held_out_json


@pytest.fixture(scope="module")
def clip(held_out):
    return held_out.parent / json.loads(held_out.read_text())[0]["video"]


def ask(collator, clip, question, annotation=None):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "The answer."}]
    raw = {"video": str(clip), "conversations": turns, "annotation": annotation}
    return collator.reader.read(parse_record(raw, "a record", "/"))


def text_of(collator, reading, word):
    tokens = reading.inputs["input_ids"][0, word.start : word.end]
    return collator.processor.tokenizer.decode(tokens)


def eager_maps(folder, reading, grid):
    """float32[L, S, T, H, W]: output_attentions of the eager model, mean over heads, the visual columns."""
    eager = load(folder, "eager")
    with torch.no_grad():
        attentions = eager(**reading.inputs, output_attentions=True, use_cache=False).attentions
    visual = (reading.inputs["input_ids"][0] == eager.config.video_token_id).nonzero().flatten()
    return torch.stack([layer[0].mean(0)[:, visual].unflatten(1, grid) for layer in attentions])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_maps_equal_eager_attention_for_prompt_and_generated_tokens(tiny_model_dir, collator, clip, attention):
    model = load(tiny_model_dir, attention)
    sample = ask(collator, clip, "What pattern does the red circle have?")
    answer = next(generate_tokens(model, collator, [sample], max_new_tokens=6))
    reading = read_words(collator, sample, answer, phrases=["red circle", "pattern"])
    layers = list(range(model.config.text_config.num_hidden_layers))
    generated = [(place, place + 1) for place in range(reading.answer_start, reading.inputs["input_ids"].shape[1])]
    spans = [(word.start, word.end) for word in reading.words] + generated
    maps = extract(model, reading.inputs, spans, layers)
    grid = tuple(
        size // 2 if number else size for number, size in enumerate(reading.inputs["video_grid_thw"][0].tolist())
    )
    assert len(generated) == len(answer) > 0 and maps.shape == (len(spans), len(layers), *grid)
    expected = eager_maps(tiny_model_dir, reading, grid)
    expected = torch.stack([expected[:, start:end].mean(1) for start, end in spans])
    assert expected.max() > 1e-3
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-5)


def test_generated_rows_equal_the_attention_of_generation_itself(tiny_model_dir, collator, clip):
    """Each generated token's row, as incremental eager decoding hands it out when that token is read."""
    eager = load(tiny_model_dir, "eager")
    sample = ask(collator, clip, "What pattern does the red circle have?")
    prompt = read_words(collator, sample).inputs
    made = eager.generate(
        **prompt,
        max_new_tokens=5,
        min_new_tokens=5,
        do_sample=False,
        output_attentions=True,
        return_dict_in_generate=True,
    )
    length = prompt["input_ids"].shape[1]
    answer = made.sequences[0, length:].tolist()
    reading = read_words(collator, sample, answer)
    maps = extract(eager, reading.inputs, [(length + n, length + n + 1) for n in range(4)], [0, 3])
    visual = prompt["input_ids"][0] == eager.config.video_token_id
    for number in range(4):
        step = made.attentions[number + 1]  # the forward that read token `number`
        for place, layer in enumerate([0, 3]):
            expected = step[layer][0].mean(0)[0, : len(visual)][visual]
            torch.testing.assert_close(maps[number, place].flatten(), expected, rtol=0, atol=1e-5)


def test_a_stock_checkpoint_gives_every_fifth_layer_and_images_have_one_step(make_tiny_model, make_tiny_config):
    model = make_tiny_model(make_tiny_config(num_hidden_layers=9))
    spec = Spec(visual="image", grid=(1, 3, 4), after=6)
    batch = make_batch([spec])
    inputs = {
        name: batch[name]
        for name in ("input_ids", "attention_mask", "mm_token_type_ids", "pixel_values", "image_grid_thw")
    }
    maps = extract(model, inputs, [(spec.behind, spec.behind + 2)])
    assert maps.shape == (1, 2, 1, 3, 4)


def test_many_spans_may_overlap_and_equal_single_ones(model, collator, clip):
    reading = read_words(collator, ask(collator, clip, "What pattern does the red circle have? " * 5))
    end = reading.inputs["input_ids"].shape[1]
    spans = [(end - n - 1 - n % 3, end - n) for n in range(20)]
    together = extract(model, reading.inputs, spans)
    for span, maps in list(zip(spans, together))[::7]:
        torch.testing.assert_close(maps, extract(model, reading.inputs, [span])[0], rtol=1e-4, atol=1e-7)


def test_spans_that_cannot_be_looked_at_are_named(model, collator, clip):
    reading = read_words(collator, ask(collator, clip, "Where is it?"))
    first = int((reading.inputs["input_ids"][0] == model.config.video_token_id).nonzero()[0])
    with pytest.raises(ValueError, match="expected every supervised token after the visual block"):
        extract(model, reading.inputs, [(first, first + 1)])
    with pytest.raises(ValueError, match=r"spans: expected at least one.*found \[\(9, 9\)\]"):
        extract(model, reading.inputs, [(9, 9)])
    with pytest.raises(ValueError, match="spans: expected at least one.*found none"):
        extract(model, reading.inputs, [])
    end = reading.inputs["input_ids"].shape[1]
    with pytest.raises(ValueError, match=rf"positions: expected tokens below {end}, or -1, found \[{end}\]"):
        extract(model, reading.inputs, [(end, end + 1)])
    with pytest.raises(ValueError, match="layers: expected indices from 0 to"):
        extract(model, reading.inputs, [(end - 1, end)], [99])


def test_fused_maps_are_shares_of_the_clip_and_follow_the_checkpoints_rule(model):
    maps = torch.rand(2, 3, 2, 4, 5)
    mean = fuse(maps)
    torch.testing.assert_close(mean, maps.mean(1) / maps.mean(1).sum((1, 2, 3), keepdim=True))
    config = copy.deepcopy(model.config)
    config.attention_supervision = {"preset": "release"}
    product = maps.prod(1)
    torch.testing.assert_close(fuse(maps, config), product / product.sum((1, 2, 3), keepdim=True))


def test_words_of_the_question_are_found_where_they_stand(collator, held_out):
    raw = json.loads(held_out.read_text())[0]
    tagged = raw["conversations"][0]["value"]
    noun = tagged[tagged.index("<ins>") + 5 : tagged.index("</ins>")]
    raw["conversations"][0]["value"] = f"{tagged} Is Red the colour of the {noun}?"
    sample = collator.reader.read(parse_record(raw, "a record", held_out.parent))
    reading = read_words(collator, sample, phrases=[noun, "red the"])
    assert [(word.label, word.kind, word.instance) for word in reading.words] == [
        (noun, "tag", 0),
        (noun, "phrase", None),
        ("red the", "phrase", None),
    ]
    assert [text_of(collator, reading, word).strip() for word in reading.words] == [noun, noun, "Red the"]
    assert reading.words[0].end < reading.words[2].start < reading.words[1].start


def test_every_word_of_the_question_but_those_of_a_tag(collator, held_out):
    raw = json.loads(held_out.read_text())[0]
    sample = collator.reader.read(parse_record(raw, "a record", held_out.parent))
    text, noun = sample.record.turns[0].text, sample.record.turns[0].spans[0].phrase
    words = read_words(collator, sample, question_words=True).words
    assert [(word.label, word.kind) for word in words[:2]] == [(noun, "tag"), ("What", "question")]
    assert sorted(word.label for word in words) == sorted([noun, *text.replace(noun, "").strip("?").split()])
    assert all(text[word.at :].startswith(word.label) for word in words)


def test_phrases_and_words_of_the_answer_are_found(real_processor, real_processor_dir, clip):
    model_config = load(real_processor_dir).config
    collator = SwimCollator(real_processor, model_config, SETTINGS)
    sample = ask(collator, clip, "Was siehst du?")
    text = "Ein übergroßer Hund jagt—don't look!—两只狗 🐕."
    answer = real_processor.tokenizer(text).input_ids
    reading = read_words(collator, sample, answer, phrases=["Hund"], every_word=True)
    assert reading.answer == text
    assert [word.label for word in reading.words] == [
        "Hund", "Ein", "übergroßer", "Hund", "jagt", "don't", "look", "两", "只", "狗",
    ]  # fmt: skip
    for word in reading.words:
        assert word.label in text_of(collator, reading, word) and text[word.at :].startswith(word.label)
        assert word.start >= reading.answer_start


def test_a_phrase_that_stands_nowhere_is_named(collator, clip):
    with pytest.raises(ValueError, match="the phrase 'elephant' stands neither in the question nor in the answer ''"):
        read_words(collator, ask(collator, clip, "Where is it?"), phrases=["elephant"])
