"""The command that shows where a model looks: its files, its pictures' pixels, its errors."""

import json
import re

import av
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from swim.attention.captions import fit, wrap
from swim.attention.heat import NORMALISATIONS, choose_normalisation, colour_scale, relative
from swim.attention.overlay import Panel, _title, write_overlay
from swim.attention.paint import OUTLINE, OUTLINE_EDGE, Scale
from swim.attention.pictures import Row, draw_sheet
from swim.cli import visualize
from swim.cli.runs.demo_defaults import DEMO_CONFIG
from swim.data.bench import parse_annotated
from swim.data.sample import SampleReader
from swim.data.settings import DataSettings
from swim.demo.clips import make_demo_data
from swim.infer.questions import visual_record
from swim.video.clip import VisualBudget

from ..video.clips import moving_pictures, write_video

BUDGET = ["--max_frames", "4", "--min_pixels", "784", "--max_pixels", "28224", "--max_new_tokens", "4"]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return make_demo_data(tmp_path_factory.mktemp("demo"), train_clips=0, held_out_clips=1, workers=1).held_out_json


@pytest.fixture(scope="module")
def sample(held_out):
    settings = DataSettings(VisualBudget(max_frames=4, min_pixels=784, max_pixels=28224))
    raw = json.loads(held_out.read_text())[0]
    return SampleReader(settings, 28).read(parse_annotated(raw, "record 0", held_out.parent))


def frames_of(path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_record_is_shown_for_two_models(tiny_model_dir, held_out, tmp_path, capsys):
    noun = json.loads(held_out.read_text())[0]["conversations"][0]["value"].split("ins>")[1][:-2]
    options = ["--model", str(tiny_model_dir), "--base", str(tiny_model_dir), "--records", str(held_out), *BUDGET]
    options += ["--phrase", "pattern", "--layers", "all", "--output", str(tmp_path)]
    assert visualize.main(options) == 0
    facts, arrays = json.loads((tmp_path / "maps.json").read_text()), np.load(tmp_path / "maps.npz")
    assert [(word["label"], word["kind"]) for word in facts["words"]] == [(noun, "tag"), ("pattern", "phrase")]
    assert arrays["maps"].shape == tuple(facts["shape"]) == (2, len(facts["layers"]), 2, 6, 6)
    assert (arrays["maps"] == arrays["base_maps"]).all() and 0 < arrays["maps"].sum((2, 3, 4)).max() <= 1
    assert {path.name for path in tmp_path.iterdir()} == {
        "sheet.png", "layers_0.png", "layers_1.png", "overlay.mp4", "maps.npz", "maps.json",
    }  # fmt: skip
    frames = frames_of(tmp_path / "overlay.mp4")
    assert len(frames) == len(frames_of(held_out.parent / facts["source"]))
    assert "maps [2, 4, 2, 6, 6]" in capsys.readouterr().out


@pytest.mark.parametrize("normalisation", ["clipped", "relative"])
def test_a_picture_names_its_normalisation(tiny_model_dir, held_out, tmp_path, normalisation):
    options = ["--model", str(tiny_model_dir), "--records", str(held_out), "--output", str(tmp_path), *BUDGET]
    assert visualize.main([*options, "--normalise", normalisation]) == 0
    assert json.loads((tmp_path / "maps.json").read_text())["normalisation"] == normalisation
    assert colour_scale([torch.rand(1, 2, 6, 6)], normalisation).label == NORMALISATIONS[normalisation]


def test_clipped_colours_end_below_a_sink():
    heat = torch.full((1, 2, 10, 10), 0.004)
    heat[0, 0, 9, 9] = 0.9
    assert colour_scale([heat], "share").highest == pytest.approx(0.9)
    assert colour_scale([heat], "clipped").highest == pytest.approx(0.004)


def test_what_every_word_looks_at_is_one_in_relative_maps():
    maps = torch.full((6, 2, 5, 5), 0.001)
    maps[:, 0, 4, 4] = 0.5  # a sink of every word
    maps[0, 1, 2, 2] = 0.3  # the first one's own object
    found = relative(maps / maps.sum((1, 2, 3), keepdim=True), words=1)
    assert found[0].flatten().argmax() == 25 + 12
    assert found[0, 1, 2, 2] > 20 and found[0, 0, 4, 4] < 1


def test_a_video_and_a_folder_of_frames_are_asked_about(tiny_model_dir, sample, tmp_path):
    options = ["--model", str(tiny_model_dir), *BUDGET, "--prompt", "Where is the <ins>circle</ins>?"]
    assert visualize.main([*options, "--video", str(sample.record.path), "--output", str(tmp_path / "mp4")]) == 0
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(frames_of(sample.record.path)):
        Image.fromarray(frame).save(folder / f"{number:05d}.png")
    assert (
        visualize.main([*options, "--video", str(folder), "--folder_fps", "2", "--output", str(tmp_path / "png")]) == 0
    )
    mp4, png = (json.loads((tmp_path / name / "maps.json").read_text()) for name in ("mp4", "png"))
    assert mp4["words"] == png["words"] and mp4["shape"] == png["shape"] and png["fps"] == 2


def test_the_demos_configuration_is_found_from_any_folder():
    assert DEMO_CONFIG.is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--video", "{clip}"], "--prompt is missing"),
        (["--prompt", "What?"], "--prompt needs --video or --image"),
        (["--video", "{clip}", "--image", "{clip}", "--prompt", "What?"], "give only one of --video and --image"),
        (["--video", "{clip}", "--prompt", "What?"], "nothing to show: tag a noun"),
        (["--video", "{clip}", "--prompt", "A <ins>dog", "--words"], "unclosed <ins>"),
        (["--video", "{clip}", "--prompt", "A dog?", "--phrase", "cat"], "the phrase 'cat' stands neither in the question"),
        (["--video", "{clip}", "--prompt", "A dog?", "--phrase", "dog", "--layers", "1,x"], "--layers: expected"),
        (["--video", "{clip}", "--prompt", "A dog?", "--phrase", "dog", "--layers", "77"], "found .77."),
        (["--video", "{clip}x", "--prompt", "A <ins>dog</ins>?"], "no such video or image"),
        (["--records", "{records}", "--record", "nobody"], "no record has the id, index or position 'nobody'"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(tiny_model_dir, held_out, sample, tmp_path, capsys, options, message):
    given = [option.format(clip=sample.record.path, records=held_out) for option in options]
    assert visualize.main(["--model", str(tiny_model_dir), *BUDGET, "--output", str(tmp_path / "out"), *given]) == 2
    error = capsys.readouterr().err
    assert "error: " in error and re.search(message, error), error
    assert not (tmp_path / "out").exists()


def test_the_overlay_shows_each_steps_heat_and_the_outline_of_annotated_frames(sample, tmp_path):
    heat = np.zeros((2, 6, 6), np.float32)
    heat[0, 0, 0], heat[1, 5, 5] = 1.0, 1.0
    panels = [Panel("a", heat, outlined=(0,)), Panel("b", heat), Panel("clip")]
    write_overlay(tmp_path / "o.mp4", sample, panels, columns=3)
    frames = frames_of(tmp_path / "o.mp4")
    assert len(frames) == sample.clip.total and frames[0].shape[1] == 3 * 388
    outlined, plain, alone = (
        np.stack([frame[26:410, left : left + 384].astype(int) for frame in frames]) for left in (0, 388, 776)
    )
    heated = [np.abs(plain - alone)[frame, y, x].max() > 50 for frame in (0, -1) for y, x in ((20, 20), (360, 360))]
    assert heated == [True, False, False, True]
    line = np.abs(outlined - plain).max(axis=3) > 40
    assert line[0].sum() > 500 and line[1].sum() < 50  # the second frame is not annotated
    drawn = outlined[0][line[0]]
    assert (drawn.max(axis=1) < 110).mean() > 0.2  # the edge; much of the line is as light as the background
    assert (OUTLINE, OUTLINE_EDGE) == ((255, 255, 255), (0, 0, 0))


def test_a_sheet_has_a_line_for_each_row_and_at_most_so_many_columns(sample, tmp_path):
    heat = np.random.default_rng(0).random((2, 6, 6)).astype(np.float32)
    sizes = []
    for rows, columns in ((1, 8), (3, 8), (1, 1)):
        draw_sheet(tmp_path / "s.png", sample, [Row("a", heat, (0,))] * rows, Scale("share", 1.0), most_columns=columns)
        sizes.append(Image.open(tmp_path / "s.png").size)
    assert sizes[1][1] > 1.7 * sizes[0][1] and sizes[2][0] < sizes[0][0]


# ----------------------------------------------------------------------------------------------------------------------
# What strangers saw
# ----------------------------------------------------------------------------------------------------------------------


def rewritten(held_out, tmp_path, change) -> str:
    raw = json.loads(held_out.read_text())[0]
    change(raw)
    raw["video"] = str(held_out.parent / raw["video"])
    (tmp_path / "records.json").write_text(json.dumps([raw]))
    return str(tmp_path / "records.json")


def test_a_record_whose_answer_alone_is_tagged_is_shown_teacher_forced(tiny_model_dir, held_out, tmp_path, capsys):
    """As `swim from-masks` writes them."""

    def tag_answer(raw):
        raw["conversations"] = [
            {"from": "human", "value": "<video>\nWhat is in the video?"},
            {"from": "gpt", "value": "Here are <ins>a plain thing</ins> and others."},
        ]

    options = ["--model", str(tiny_model_dir), "--records", rewritten(held_out, tmp_path, tag_answer), *BUDGET]
    assert visualize.main([*options, "--output", str(tmp_path / "out")]) == 0
    facts = json.loads((tmp_path / "out" / "maps.json").read_text())
    (word,) = facts["words"]
    assert (word["label"], word["kind"], word["instance"], word["at"]) == ("a plain thing", "tag", 0, 9)
    assert facts["answer"] == "Here are a plain thing and others." and facts["answer_of"] == "the record"
    assert word["end"] - word["start"] >= 2
    assert "the answer is the record's own, not the model's" in capsys.readouterr().out
    assert visualize.main([*options, "--words", "--output", str(tmp_path / "all")]) == 0
    words = json.loads((tmp_path / "all" / "maps.json").read_text())["words"]
    things = [w for w in words if w["kind"] == "answer" and w["label"] in ("a", "plain", "thing")]
    assert (things[0]["start"], things[-1]["end"]) == (word["start"], word["end"])


def test_a_tagged_question_is_answered_by_the_model_unless_told_otherwise(tiny_model_dir, held_out, tmp_path):
    options = ["--model", str(tiny_model_dir), "--records", str(held_out), *BUDGET]
    found = {}
    for name, more in (("free", []), ("forced", ["--teacher_forced"])):
        assert visualize.main([*options, *more, "--output", str(tmp_path / name)]) == 0
        found[name] = json.loads((tmp_path / name / "maps.json").read_text())
    assert found["free"]["answer_of"] == "the model" and found["forced"]["answer_of"] == "the record"
    assert found["forced"]["answer"] in json.loads(held_out.read_text())[0]["conversations"][1]["value"].replace(
        "<ins>", ""
    ).replace("</ins>", "")


def test_where_nothing_is_outlined_it_says_so(tiny_model_dir, held_out, sample, tmp_path, capsys):
    def annotate_one_frame(raw):
        frame = raw["annotation"][0]["0"]
        raw["annotation"] = [{str(unsampled): frame}]

    budget = [*BUDGET, "--max_frames", "2", "--output", str(tmp_path / "out")]
    assert visualize.main(["--model", str(tiny_model_dir), "--records", str(held_out), *budget]) == 0
    sampled = json.loads((tmp_path / "out" / "maps.json").read_text())["frame_numbers"]
    unsampled = next(number for number in range(sample.clip.total) if number not in sampled)
    records = rewritten(held_out, tmp_path, annotate_one_frame)
    options = ["--model", str(tiny_model_dir), "--records", records, *budget]
    assert visualize.main(options) == 0
    told = "nothing is outlined: none of the 2 sampled frames is annotated; --keep_annotated_frames"
    assert told in capsys.readouterr().out
    assert visualize.main([*options, "--keep_annotated_frames"]) == 0
    assert told not in capsys.readouterr().out
    assert unsampled in json.loads((tmp_path / "out" / "maps.json").read_text())["frame_numbers"]


def wide_sample(tmp_path):
    path = write_video(tmp_path / "wide.mp4", moving_pictures(6, 144, 256))
    record = visual_record("wide", path, None, "What?")
    return SampleReader(DataSettings(VisualBudget(max_frames=4, min_pixels=784, max_pixels=28224)), 28).read(record)


LONG = "The person in the red coat walks slowly along the wet street and carries two large paper bags, and then " * 8
CHINESE = "穿红色外套的人沿着街道走，手里提着两个大纸袋。この猫は何をしていますか。고양이는 무엇을 합니까?"


@pytest.fixture
def drawn_figures(monkeypatch):
    """The figures that are drawn, which stay open for the test."""
    figures = []
    monkeypatch.setattr("matplotlib.pyplot.close", figures.append)
    yield figures
    monkeypatch.undo()
    for figure in figures:
        plt.close(figure)


@pytest.mark.filterwarnings("error:Glyph")
@pytest.mark.parametrize("most_columns", [1, 2, 8])
def test_titles_and_labels_fit_whatever_the_shape_length_and_script(tmp_path, drawn_figures, most_columns):
    sample = wide_sample(tmp_path)
    heat = np.random.default_rng(0).random((2, 3, 6)).astype(np.float32)
    names = ["person in the red coat (swim-7b-long-name)", CHINESE, "$5 bag_1^", "a", "two large paper bags", "b"]
    rows = [Row(name, heat) for name in names]
    scale = Scale(NORMALISATIONS["clipped"], 1.0)
    draw_sheet(tmp_path / "s.png", sample, rows, scale, f"{CHINESE}\n{LONG}", most_columns)
    (figure,) = drawn_figures
    width, height = figure.canvas.get_width_height()
    figure.canvas.draw()
    texts = {text.get_text(): text.get_window_extent() for text in figure.texts}
    (heading,) = [text for text in texts if text.startswith(CHINESE[:3]) and text not in labels_of(names)]
    title = texts[heading]
    labels = [texts[label] for label in labels_of(names)]
    meaning = next(box for text, box in texts.items() if text.startswith("share"))
    assert meaning.x1 <= width and meaning.y0 >= 0
    for box in (title, *labels):
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height
    assert not any(a.overlaps(b) for n, a in enumerate((title, *labels)) for b in labels[n:])
    assert heading.endswith("…")
    frames = [axis.get_window_extent() for axis in figure.axes if axis.images]
    assert not any(label.overlaps(frame) for label in labels for frame in frames)


def labels_of(names):
    return {wrap(name, 18, 4) for name in names}


@pytest.mark.filterwarnings("error:Glyph")
def test_the_overlay_writes_any_script_within_its_panel(tmp_path):
    for text in ("dog", CHINESE, LONG):
        fitting, font = fit(text, 200, 14)
        assert font.getlength(fitting) <= 200 and text.startswith(fitting.removesuffix("…"))
    pictures = {_title(text, 200).tobytes() for text in ("猫", "狗", "개", "ね", "dog")}
    assert len(pictures) == 5  # no two of them are the same box


def test_one_wild_cell_darkens_no_picture(tiny_model_dir, held_out, tmp_path, capsys, monkeypatch):
    even = torch.rand(3, 4, 10, 10, generator=torch.Generator().manual_seed(0))
    assert choose_normalisation([even]) == "share"
    even[0, 0, 0, 0] = 30.0
    assert choose_normalisation([even]) == "clipped" and choose_normalisation([torch.zeros(1, 2, 3, 3)]) == "share"
    monkeypatch.setattr("swim.attention.heat._WILD", 0.5)  # what the tiny model shows is even
    options = ["--model", str(tiny_model_dir), "--records", str(held_out), *BUDGET, "--output", str(tmp_path)]
    assert visualize.main(options) == 0
    assert "colours end at 99 % of them; --normalise share shows all" in capsys.readouterr().out
    assert json.loads((tmp_path / "maps.json").read_text())["normalisation"] == "clipped"
    assert visualize.main([*options, "--normalise", "share"]) == 0
    assert json.loads((tmp_path / "maps.json").read_text())["normalisation"] == "share"
