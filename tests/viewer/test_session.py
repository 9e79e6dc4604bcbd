"""What the viewer computes, without its page."""

import json

import av
import numpy as np
import pytest
import torch

from swim.attention import extract
from swim.attention.maps import fuse
from swim.data.settings import DataSettings
from swim.demo.clips import make_demo_data
from swim.errors import DataError
from swim.video.clip import VisualBudget
from swim.viewer.session import Session, overlay, pieces_of, still

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
    maps = extract(session.model, seen.reading.inputs, [span], session.layers)
    expected = {None: fuse(maps, session.model.config)[0]}
    expected |= {layer: maps[0, n] / maps[0, n].sum() for n, layer in enumerate(session.layers)}
    for layer, heat in expected.items():
        found = session.look(seen, word, layer, "share")
        torch.testing.assert_close(torch.from_numpy(found.heat), heat, rtol=1e-4, atol=1e-7)
    heats = [session.look(seen, n, None, "share") for n in range(len(seen.reading.words))]
    assert max(heat.heat.max() for heat in heats) == pytest.approx(heats[0].scale.highest)  # one scale for all words
    assert session.look(seen, word, None, "relative").scale.label.startswith("times the mean")


def test_pictures_follow_word_and_step(session, seen, tmp_path):
    first, other = (session.look(seen, number, None, "share") for number in (0, 1))
    stills = [still(seen, first, 0), still(seen, first, 1), still(seen, other, 0)]
    assert len({picture.tobytes() for picture in stills}) == 3 and len({p.shape for p in stills}) == 1
    videos = []
    for name, heat in (("a", first), ("b", other)):
        with av.open(str(overlay(seen, heat, tmp_path / f"{name}.mp4"))) as container:
            videos.append(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]))
    assert len(videos[0]) == seen.reading.sample.clip.total and (videos[0] != videos[1]).any()


def test_what_cannot_be_asked_is_named_and_the_next_question_works(session, clip, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    for path, question, message in (
        (str(broken), TAGGED, "broken.mp4"),
        (clip, "  ", "the prompt is empty"),
        (clip, "Where is the <ins>dog?", "unclosed <ins>"),
    ):
        with pytest.raises((DataError, ValueError), match=message):
            session.ask(path, question)
    assert session.ask(clip, "Where is the dog?").steps == 2
