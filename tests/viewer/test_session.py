"""What the viewer computes, without its page."""

import json
import shutil
from copy import copy
from dataclasses import replace

import av
import numpy as np
import pytest
import torch

from swim.attention import extract
from swim.attention.evidence import Fit, Judgement, write_fits
from swim.attention.maps import fuse, read_words
from swim.data.settings import DataSettings
from swim.demo.clips import make_demo_data
from swim.demo.model import build_tiny_model
from swim.errors import DataError
from swim.video.clip import VisualBudget
from swim.viewer.session import Session, names_of, overlay, pieces_of, still

TAGGED = "What pattern does the <ins>red circle</ins> have?"
SETTINGS = DataSettings(VisualBudget(max_frames=4, min_pixels=784, max_pixels=28224), keep_annotated_frames=False)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    data = make_demo_data(tmp_path_factory.mktemp("demo"), train_clips=0, held_out_clips=1, workers=1)
    return str(data.held_out_json.parent / json.loads(data.held_out_json.read_text())[0]["video"])


@pytest.fixture(scope="module")
def session(tiny_model_dir) -> Session:
    return Session(str(tiny_model_dir), SETTINGS, max_new_tokens=5)


@pytest.fixture(scope="module")
def seen(session, clip):
    return session.ask(clip, TAGGED)


def test_every_word_of_question_and_answer_can_be_clicked(seen):
    words = seen.reading.words
    asked = pieces_of(seen.question, words, ("tag", "question"))
    assert [piece for piece, number in asked if number is not None] == [
        "What",
        "pattern",
        "does",
        "the",
        "red circle",
        "have",
    ]
    answered = pieces_of(seen.reading.answer, words, ("answer",))
    for pieces, text in ((asked, seen.question), (answered, seen.reading.answer)):
        assert "".join(piece for piece, _ in pieces) == text
        assert all(words[number].label == piece for piece, number in pieces if number is not None)


def test_the_heat_is_that_of_extract_at_the_layer(session, seen):
    word = next(n for n, word in enumerate(seen.reading.words) if word.label == "red circle")
    span = (seen.reading.words[word].start, seen.reading.words[word].end)
    (model,) = session.models
    maps = extract(model, seen.reading.inputs, [span], session.layers)
    expected = {None: fuse(maps, model.config)[0]}
    expected |= {layer: maps[0, n] / maps[0, n].sum() for n, layer in enumerate(session.layers)}
    for layer, heat in expected.items():
        (found,) = session.look(seen, word, layer, "share")
        torch.testing.assert_close(torch.from_numpy(found.heat), heat, rtol=1e-4, atol=1e-7)
        assert found.scale.highest == pytest.approx(float(heat.max()), rel=1e-4)  # faint words are as bright as others
    assert session.look(seen, word, None, "relative")[0].scale.label.startswith("times the mean")


def test_nouns_are_judged_by_the_models_own_fit(tiny_model_dir, clip, tmp_path):
    path = tmp_path / "evidence.json"
    write_fits(path, str(tiny_model_dir), {"asked": Fit([0.0] * 4, [1.0] * 4, [0.0] * 4, 0.0, 0.6)})
    seen = Session(str(tiny_model_dir), SETTINGS, 5, evidence=str(path)).ask(clip, TAGGED)
    assert {seen.reading.words[n].label: found for n, found in seen.judgements.items()} == {
        "red circle": Judgement("asked", 0.5, False)
    }
    write_fits(path, "another/model", {})
    with pytest.raises(DataError, match="the fit is of another/model"):
        Session(str(tiny_model_dir), SETTINGS, evidence=str(path))


def test_the_map_that_is_shown_is_named(session):
    session = copy(session)
    assert session.describe(2) == "layer 2"
    session.layers, session.fusion = [2, 7, 12], "product"
    assert session.describe(None) == "product of layers 2, 7 and 12"
    session.layers = [2]
    assert session.describe(None) == "layer 2, the only one that is read"


def test_pictures_follow_word_and_step(session, seen, tmp_path):
    first, other = (session.look(seen, number, None, "share") for number in (0, 1))
    stills = [still(seen, first, 0), still(seen, first, 1), still(seen, other, 0)]
    assert len({picture.tobytes() for picture in stills}) == 3 and len({p.shape for p in stills}) == 1
    videos = []
    for name, heat in (("a", first), ("b", other)):
        with av.open(str(overlay(seen, heat, tmp_path / f"{name}.mp4"))) as container:
            videos.append(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]))
    height, width = videos[0].shape[1:3]
    assert width == 2 * 388
    # The clip is the same in both; an encoder spends its bits elsewhere where the heat beside it is another.
    difference = np.abs(videos[0][:, :, :380].astype(int) - videos[1][:, :, :380])
    assert difference.mean() < 1 and (difference > 16).mean() < 0.001
    assert len(videos[0]) == seen.reading.sample.clip.total and (videos[0] != videos[1]).any()


def test_what_cannot_be_asked_is_named_and_the_next_question_works(session, clip, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    for path, question, message in (
        (str(broken), TAGGED, "broken.mp4"),
        (clip, "  ", "the prompt is empty"),
        (clip, "Where is the <ins>dog?", "unclosed <ins>"),
        (str(tmp_path / "gone.mp4"), TAGGED, "gone.mp4"),
    ):
        with pytest.raises((DataError, ValueError), match=message):
            session.ask(path, question)
    assert session.ask(clip, "Where is the dog?").steps == 2


def test_two_models_look_at_the_same_words(tiny_model_dir, tmp_path_factory, clip, session, seen, tmp_path):
    other = build_tiny_model(tmp_path_factory.mktemp("other") / "another seed", seed=1)
    pair = Session(str(tiny_model_dir), SETTINGS, max_new_tokens=5, base_path=str(other))
    assert pair.names == [tiny_model_dir.name, "another seed"]
    both = pair.ask(clip, TAGGED)
    assert both.reading.words == seen.reading.words and torch.equal(both.maps[0], seen.maps[0])
    assert len(both.answers) == 1
    first, second = pair.look(both, 0, None, "share")
    assert (first.model, second.model) == tuple(pair.names) and (first.heat != second.heat).any()
    spans = [(word.start, word.end) for word in both.reading.words]
    expected = extract(pair.models[1], both.reading.inputs, spans, pair.layers)
    torch.testing.assert_close(both.maps[1][: len(spans)], expected)
    assert still(both, [first, second], 0).shape[1] == 3 * 388
    with av.open(str(overlay(both, [first, second], tmp_path / "o.mp4"))) as container:
        assert container.streams.video[0].width == 3 * 388


def test_models_of_other_words_or_fewer_layers_are_refused(tiny_model_dir, real_processor_dir, tmp_path):
    with pytest.raises(ValueError, match="cannot show .*: their tokenizers differ"):
        Session(str(tiny_model_dir), SETTINGS, base_path=str(real_processor_dir))
    shallow = tmp_path / "shallow"
    shutil.copytree(tiny_model_dir, shallow)
    config = json.loads((shallow / "config.json").read_text())
    config["text_config"] |= {"num_hidden_layers": 2, "layer_types": config["text_config"]["layer_types"][:2]}
    (shallow / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="it has no layer 2, but 2 layers"):
        Session(str(tiny_model_dir), SETTINGS, base_path=str(shallow))
    config.pop("attention_supervision", None)
    (shallow / "config.json").write_text(json.dumps(config))
    assert Session(str(shallow), SETTINGS).layers == [1]  # alone it is shown at its last layer


def test_names_are_short_where_that_tells_models_apart(tmp_path):
    for name in ("a/demo", "b/demo", "b/base"):
        (tmp_path / name).mkdir(parents=True)
    first, second, base = (str(tmp_path / name) for name in ("a/demo", "b/demo", "b/base"))
    assert names_of([first, base]) == ["demo", "base"] and names_of([first, second]) == [first, second]
    assert names_of(["Qwen/Qwen2.5-VL-7B-Instruct"]) == ["Qwen/Qwen2.5-VL-7B-Instruct"]


def test_every_word_of_a_sentence_can_be_clicked(real_processor_dir, clip):
    """A model with the real tokenizer, which says what it was taught to: a sentence of several tokens a word."""
    session = Session(str(real_processor_dir), SETTINGS, max_new_tokens=24)
    sentence = "It's an antidisestablishmentarian bulldog, isn't it? 狗坐在床上。"
    tokens = session.collators[0].processor.tokenizer(sentence)["input_ids"]
    seen = session.ask(clip, "Describe the <ins>dog</ins> on the bed.")
    assert "".join(piece for piece, _ in pieces_of(seen.reading.answer, seen.reading.words, ("answer",))) == (
        seen.reading.answer
    )
    reading = read_words(session.collators[0], seen.reading.sample, tokens, every_word=True, question_words=True)
    said = [word for word in reading.words if word.kind == "answer"]
    assert [word.label for word in said] == [
        "It's", "an", "antidisestablishmentarian", "bulldog", "isn't", "it", *"狗坐在床上",
    ]  # fmt: skip
    maps = extract(
        session.models[0], reading.inputs, [(word.start, word.end) for word in reading.words], session.layers
    )
    spoken = replace(seen, reading=reading, maps=[maps])
    number = reading.words.index(said[2])
    (heat,) = session.look(spoken, number, None, "share")
    assert heat.word.end - heat.word.start > 1 and heat.heat.sum() == pytest.approx(1.0, rel=1e-4)
    assert still(spoken, [heat], 0).shape[2] == 3


def test_a_question_and_an_answer_without_words_are_an_error(tiny_model_dir, clip):
    silent = Session(str(tiny_model_dir), SETTINGS)
    silent.models[0].generation_config.eos_token_id = list(range(silent.models[0].config.text_config.vocab_size))
    with pytest.raises(DataError, match="no word in the question or the answer"):
        silent.ask(clip, "?!")
