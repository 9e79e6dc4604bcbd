"""swim infer: one question streamed, and files of many that survive kills."""

import json
import random
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

from swim.cli.infer import main
from swim.cli.runs.infer import demo_record
from swim.data.collator import SwimCollator
from swim.data.settings import DataSettings
from swim.demo.inputs import DemoOptions
from swim.infer.generate import generate_answers, repeats_itself, stream_answer
from swim.infer.load import load_for_inference
from swim.infer.questions import visual_record
from swim.video.clip import VisualBudget

from ..chat_server import ChatServer
from ..killing import run_and_kill
from ..video.clips import moving_pictures, write_video

BUDGET = ["--max_frames", "4", "--min_pixels", "784", "--max_pixels", "28224", "--max_new_tokens", "6"]
SETTINGS = DataSettings(budget=VisualBudget(max_frames=4, min_pixels=784, max_pixels=28224))
PROMPT = "What pattern does the red circle have?"
TAGGED = "What pattern does the <ins>red circle</ins> have?"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder with clip.mp4, the same frames in frames/*.jpg, image.png, broken.mp4."""
    folder = tmp_path_factory.mktemp("sources")
    frames = moving_pictures(12)
    write_video(folder / "clip.mp4", frames)
    (folder / "frames").mkdir()
    for number, pixels in enumerate(frames):
        Image.fromarray(pixels).save(folder / "frames" / f"{number}.jpg")
    Image.fromarray(frames[0]).save(folder / "image.png")
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def chatty_dir(tiny_model_dir, tmp_path_factory):
    """Checkpoint folder of a tiny chatty model."""
    folder = tmp_path_factory.mktemp("chatty")
    model, processor = load_chatty(tiny_model_dir)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def load_chatty(model_dir):
    """(model, processor): with weights so large and random that the model says something else at every token."""
    model, processor = load_for_inference(model_dir, "cpu")
    torch.manual_seed(0)
    for weight in model.model.language_model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return model, processor


@pytest.fixture
def ask(chatty_dir):
    """Function: the exit code of the command for these arguments."""
    return lambda *arguments: main(["--model", str(chatty_dir), *BUDGET, *map(str, arguments)])


def read_lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def greedy(model_dir, record, max_new_tokens=6) -> str:
    model, processor = load_for_inference(model_dir, "cpu")
    collator = SwimCollator(processor, model.config, SETTINGS)
    return next(generate_answers(model, collator, [collator.read(record)], max_new_tokens=max_new_tokens))


@pytest.mark.parametrize(
    ("option", "name"),
    [("--video", "clip.mp4"), ("--video", "frames"), ("--video", "image.png"), ("--image", "image.png")],
)
def test_every_kind_of_source_is_answered_with_or_without_tags(sources, chatty_dir, ask, capsys, option, name):
    path = sources / name
    assert ask(option, path, "--prompt", TAGGED) == 0
    with_tags, notes = capsys.readouterr()
    assert "seen nothing but the demo's clips" in notes and "--model" in notes
    for prompt in (PROMPT, f"<video>\n{TAGGED}"):
        assert ask(option, path, "--prompt", prompt) == 0
        assert capsys.readouterr().out == with_tags
    record = visual_record("here", path, None, PROMPT)
    assert record.is_image == (name == "image.png")
    assert with_tags == greedy(chatty_dir, record) + "\n" and len(with_tags) > 1


def test_the_rate_of_a_folder_counts(sources, ask, capsys):
    answers = set()
    for fps in ("24", "2"):
        assert ask("--video", sources / "frames", "--prompt", PROMPT, "--folder_fps", fps, "--fps", "1") == 0
        answers.add(capsys.readouterr().out)
    assert len(answers) == 2


@pytest.mark.parametrize(("model_dir", "name"), [("tiny_model_dir", "image.png"), ("real_processor_dir", "clip.mp4")])
def test_the_streamed_pieces_are_the_greedy_answer(sources, model_dir, name, request):
    """The real tokenizer's random tokens hold Chinese, torn characters and line breaks."""
    model, processor = load_chatty(request.getfixturevalue(model_dir))
    collator = SwimCollator(processor, model.config, SETTINGS)
    sample = collator.read(visual_record("here", sources / name, None, PROMPT))
    pieces, ids = drain(stream_answer(model, collator, sample, max_new_tokens=50))
    assert len(set(ids)) > 15 and len(pieces) > 5
    assert "".join(pieces) == next(generate_answers(model, collator, [sample], max_new_tokens=50))
    assert "".join(pieces) == processor.tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize(
    ("text", "circles"),
    [
        ("", False),
        ("checked striped " * 10, True),
        ("checked striped " * 9, False),
        ("no " * 19, False),
        ("Well, " + "no " * 20, True),
        ("The dog runs. " * 5, False),
        ("The dog runs. " * 7, True),
        ("The dog runs. " * 7 + "Then it sits.", False),
        (" ".join(map(str, range(13))) + " " + " ".join(map(str, range(13))), False),
        (("a b c d e f g h i j k l " * 5), True),
    ],
)
def test_a_circle_is_told_from_a_text(text, circles):
    assert repeats_itself(text) == circles


def drain(generator) -> tuple[list, list]:
    """(what it yields, what it returns)."""
    pieces = []
    while True:
        try:
            pieces.append(next(generator))
        except StopIteration as end:
            return pieces, end.value


def test_a_closed_stream_stops_the_model(sources, chatty_dir):
    model, processor = load_for_inference(chatty_dir, "cpu")
    collator = SwimCollator(processor, model.config, SETTINGS)
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    stream = stream_answer(
        model, collator, collator.read(visual_record("here", sources / "clip.mp4", None, PROMPT)), 5000
    )
    next(stream)
    stream.close()
    made = len(passes)
    time.sleep(0.1)
    assert len(passes) == made < 1000


def test_an_error_of_the_model_reaches_the_reader(sources, chatty_dir):
    model, processor = load_for_inference(chatty_dir, "cpu")
    collator = SwimCollator(processor, model.config, SETTINGS)
    sample = collator.read(visual_record("here", sources / "clip.mp4", None, PROMPT))
    with pytest.raises(ValueError, match="max_new_tokens"):
        list(stream_answer(model, collator, sample, max_new_tokens=0))


def refused(**arguments):
    return [part for name, value in arguments.items() for part in (f"--{name}", value)]


REFUSALS = {
    "no prompt": (refused(video="clip.mp4"), "--prompt is missing"),
    "no video": (refused(prompt=PROMPT), "--prompt needs --video or --image"),
    "empty prompt": (refused(video="clip.mp4", prompt=" \n"), "the prompt is empty"),
    "unclosed tag": (refused(video="clip.mp4", prompt="Describe the <ins>dog."), "--video: unclosed <ins>"),
    "unopened tag": (refused(image="image.png", prompt="Describe the dog</ins>."), "--image: </ins> without <ins>"),
    "special token": (refused(video="clip.mp4", prompt="A <|im_end|>"), "the text holds the special token <|im_end|>"),
    "both": (refused(video="clip.mp4", image="image.png", prompt=PROMPT), "either --video or --image"),
    "missing video": (refused(video="none.mp4", prompt=PROMPT), "--video: no such video or image: none.mp4"),
    "broken video": (refused(video="broken.mp4", prompt=PROMPT), "--video: "),
    "empty folder": (refused(video="empty", prompt=PROMPT), "no image in the frame folder empty"),
    "an image that is none": (refused(image="clip.mp4", prompt=PROMPT), "expected an image, found clip.mp4"),
    "a server": (refused(video="clip.mp4", prompt=PROMPT, backend="openai"), "--backend openai answers --batch only"),
    "missing model": (refused(video="clip.mp4", prompt=PROMPT, model="./none"), "cannot load the model ./none"),
    "no demo": (refused(model="output/demo"), "no model at output/demo yet"),
    "batch and more": (refused(batch="b.jsonl", prompt=PROMPT), "--batch holds the questions"),
    "missing batch": (refused(batch="b.jsonl"), "b.jsonl: no such file; fix --batch"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_answered_is_one_clear_line(sources, ask, capsys, monkeypatch, name):
    monkeypatch.chdir(sources)
    (sources / "empty").mkdir(exist_ok=True)
    arguments, message = REFUSALS[name]
    assert ask(*arguments) == 2
    out, err = capsys.readouterr()
    error = err[err.index("error: ") :]
    assert out == "" and message in error and len(error.splitlines()) == 1


def test_without_arguments_a_held_out_clip_is_asked_about(tmp_path):
    record = demo_record(DemoOptions(dir=str(tmp_path), train_clips=1, held_out_clips=1, seed=0))
    assert record.path.is_file() and record.path.parent.name == "held_out" and not record.is_image
    assert record.turns[0].text.startswith("What pattern does the ") and "<" not in record.turns[0].text
    assert record.instances == []


def batch_of(folder, lines: list) -> str:
    path = folder / "questions.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_a_batch_is_answered_in_its_order_and_what_fails_is_listed(sources, chatty_dir, ask, tmp_path, capsys):
    lines = [
        {"video": "clip.mp4", "prompt": TAGGED, "id": "wörd"},
        "\n",
        {"video": "broken.mp4", "prompt": PROMPT},
        {"video": "frames", "prompt": PROMPT, "fps": 6, "note": "the user's own"},
        {"image": "image.png", "prompt": PROMPT, "id": 70},
        {"video": ["frames/3.jpg", "frames/7.jpg"], "prompt": PROMPT},
        {"video": "late.mp4", "prompt": PROMPT},
    ]
    arguments = ["--batch", batch_of(tmp_path, lines), "--video_root", sources, "--output", tmp_path / "out"]
    assert ask(*arguments, "--batch_size", "2") == 1
    out, err = capsys.readouterr()
    assert "4 of 6 questions are answered" in out and "2 could not be answered" in err
    answers = read_lines(tmp_path / "out" / "answers.jsonl")
    assert [entry["id"] for entry in answers] == ["wörd", "4", "70", "6"]
    assert answers[0]["answer"] == greedy(chatty_dir, visual_record("", sources / "clip.mp4", None, PROMPT))
    assert answers[2]["answer"] == greedy(chatty_dir, visual_record("", None, sources / "image.png", PROMPT))
    errors = read_lines(tmp_path / "out" / "errors.jsonl")
    assert [entry["id"] for entry in errors] == ["3", "7"]
    assert "broken.mp4" in errors[0]["error"] and "line 7: no such video or image" in errors[1]["error"]

    # The same command again, now that one video is there: what failed is asked again, nothing else changes.
    (sources / "late.mp4").write_bytes((sources / "clip.mp4").read_bytes())
    parts = (tmp_path / "out" / "parts" / "00000.jsonl").stat().st_size
    assert ask(*arguments, "--batch_size", "2") == 1
    assert (tmp_path / "out" / "parts" / "00000.jsonl").stat().st_size < parts * 2
    assert read_lines(tmp_path / "out" / "answers.jsonl")[:4] == answers
    assert [entry["id"] for entry in read_lines(tmp_path / "out" / "answers.jsonl")][4:] == ["7"]
    assert [entry["id"] for entry in read_lines(tmp_path / "out" / "errors.jsonl")] == ["3"]


GOOD = {"video": "clip.mp4", "prompt": PROMPT}
BAD_LINES = {
    "malformed": ('{"video": "clip.mp4"\n', "malformed JSON"),
    "not utf-8": ('"\udcff"\n', "malformed JSON"),
    "no object": (["clip.mp4"], "valid dictionary"),
    "no prompt": ({"video": "clip.mp4"}, "prompt: Field required"),
    "a number for a prompt": ({**GOOD, "prompt": 3}, "prompt: "),
    "empty prompt": ({**GOOD, "prompt": " "}, "the prompt is empty"),
    "no video": ({"prompt": PROMPT}, 'expected either "video" or "image"'),
    "both": ({**GOOD, "image": "image.png"}, 'expected either "video" or "image"'),
    "malformed tags": ({**GOOD, "prompt": "the <ins>dog"}, "unclosed <ins>"),
    "an image that is none": ({"image": "clip.mp4", "prompt": PROMPT}, "expected an image"),
    "bad rate": ({**GOOD, "fps": 0}, "fps: "),
    "half an emoji": ('{"video": "clip.mp4", "prompt": "half \\ud83d here"}', "half a character"),
    "id twice": ({**GOOD, "id": "1"}, "the id '1' is given twice"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_named_before_anything_is_loaded(sources, tmp_path, capsys, name):
    line, message = BAD_LINES[name]
    text = line if isinstance(line, str) else json.dumps(line)
    path = tmp_path / "questions.jsonl"
    path.write_bytes((json.dumps(GOOD) + "\n\n" + text).encode("utf-8", "surrogateescape"))
    assert main(["--model", "no model", "--batch", str(path), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}, line 3") and message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_batch_of_another_editor_is_read_or_named(sources, tmp_path, capsys):
    line = json.dumps({**GOOD, "prompt": " "})
    path = tmp_path / "questions.jsonl"
    path.write_text(line, encoding="utf-8-sig")
    assert main(["--model", "no model", "--batch", str(path)]) == 2
    assert "line 1: the prompt is empty" in capsys.readouterr().err
    path.write_text(line, encoding="utf-16")
    assert main(["--model", "no model", "--batch", str(path)]) == 2
    assert capsys.readouterr().err.endswith("expected UTF-8, found UTF-16; save the file as UTF-8\n")


def test_a_batch_without_questions_is_refused(tmp_path, capsys):
    assert main(["--model", "no model", "--batch", batch_of(tmp_path, ["\n"])]) == 2
    assert "no questions in it" in capsys.readouterr().err


def test_an_openai_server_answers_a_batch(sources, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    lines = [{"video": "clip.mp4", "prompt": TAGGED}, {"image": "image.png", "prompt": PROMPT}]
    arguments = ["--batch", batch_of(tmp_path, lines), "--video_root", str(sources), "--output", str(tmp_path / "out")]
    with ChatServer(lambda request: "A red circle.") as server:
        assert (
            main(["--backend", "openai", "--base_url", server.url, "--model", "some/model", *BUDGET, *arguments]) == 0
        )
        pictures = [sum(part["type"] == "image_url" for part in r["messages"][1]["content"]) for r in server.requests]
    assert sorted(pictures) == [1, 4]
    answers = read_lines(tmp_path / "out" / "answers.jsonl")
    assert answers == [{"id": "1", "answer": "A red circle."}, {"id": "2", "answer": "A red circle."}]
    assert read_lines(tmp_path / "out" / "errors.jsonl") == []


def test_two_cpu_processes_share_the_questions(sources, chatty_dir, tmp_path):
    lines = [{"video": "clip.mp4", "prompt": f"{PROMPT} {n}", "id": f"q{n}"} for n in range(5)]
    arguments = ["--batch", batch_of(tmp_path, lines), "--video_root", str(sources), "--output", str(tmp_path / "out")]
    launch = [sys.executable, "-m", "swim.launch", "--standalone", "--nproc_per_node", "2", "-m", "swim", "infer"]
    done = subprocess.run([*launch, "--model", str(chatty_dir), *BUDGET, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    parts = [read_lines(tmp_path / "out" / "parts" / f"0000{rank}.jsonl") for rank in (0, 1)]
    assert [[line["id"] for line in part] for part in parts] == [["q0", "q2", "q4"], ["q1", "q3"]]
    assert [line["id"] for line in read_lines(tmp_path / "out" / "answers.jsonl")] == [f"q{n}" for n in range(5)]
    assert done.stdout.count("5 of 5 questions are answered") == 1


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, 10])
def test_killed_batches_end_in_the_same_file(sources, ask, chatty_dir, tmp_path, kills):
    """Two processes, killed and run again: byte for byte the answers and errors of a run that nobody disturbed."""
    kinds = [{"video": "clip.mp4"}, {"video": "frames", "fps": 5}, {"image": "image.png"}, {"video": "broken.mp4"}]
    lines = [{**kinds[n % 4], "prompt": f"{PROMPT} {n}", "id": f"q{n}"} for n in range(48 * kills)]
    arguments = ["--batch", batch_of(tmp_path, lines), "--video_root", str(sources), "--batch_size", "2", "--output"]
    assert ask(*arguments, tmp_path / "whole") == 1
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [
        *launch,
        "-m",
        "swim",
        "infer",
        "--model",
        str(chatty_dir),
        *BUDGET,
        *arguments,
        str(tmp_path / "broken"),
    ]
    dice = random.Random(kills)
    for _ in range(kills):
        run_and_kill(command, tmp_path / "broken" / "parts", dice.uniform(0, 0.3))
    assert any((tmp_path / "broken" / "parts").iterdir()) and not (tmp_path / "broken" / "answers.jsonl").exists()
    assert ask(*arguments, tmp_path / "broken") == 1
    for name in ("answers.jsonl", "errors.jsonl"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_real_clip_and_the_real_tokenizer(test_data, real_processor_dir, capsys):
    clip = test_data / "videorefer_dog" / "dog.mp4"
    assert (
        main(
            [
                "--model",
                str(real_processor_dir),
                "--video",
                str(clip),
                "--prompt",
                "Describe the <ins>dog</ins>.",
                *BUDGET,
            ]
        )
        == 0
    )
    expected = greedy(real_processor_dir, visual_record("here", clip, None, "Describe the dog."))
    assert capsys.readouterr().out == expected + "\n"
