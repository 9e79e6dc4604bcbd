"""The review page: complete in itself, in the instances' colours, and safe for whatever the texts hold."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from swim.cli.review import main
from swim.construct.review import sample_records
from swim.data.mixture import load_mixture

from ..video.clips import pictures, write_video
from .records import annotation

EVIL = '<script>alert("x")</script> & <img src=x onerror=y>'


def record(number: int, **more) -> dict:
    turns = [
        {"from": "human", "value": "<video>\nIs the <ins>dog</ins> near the <ins>laptop</ins>?"},
        {"from": "gpt", "value": "The <ins>dog</ins> is."},
    ]
    return {
        "index": f"videorefer_{number}",
        "video": "clip.mp4",
        "conversations": turns,
        "annotation": annotation(2),
        **more,
    }


BENCH_Q = {
    "id": 5,
    "video": "clip.mp4",
    "Question": "What does the <ins>cat</ins> see?",
    "options": ["(A) The <ins>horse</ins>", "(B) Nothing"],
    "Answer": "(A) The <ins>horse</ins>",
    "type": "Basic Questions",
    "annotation": annotation(2),
}


class Page(HTMLParser):
    """What a browser would load and show."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.sources, self.marks, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        found = dict(attributes)
        self.sources += [value for name, value in attributes if name in ("src", "href", "srcset")]
        if tag == "mark":
            self.marks.append((found.get("class"), found.get("title")))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def review(tmp_path):
    """Function: the page about these records, whose clip exists."""
    write_video(tmp_path / "clip.mp4", pictures(6))

    def make(records: list[dict], *flags: str) -> Page:
        path, output = tmp_path / "refined.json", tmp_path / "review.html"
        path.write_text(json.dumps(records))
        assert main([str(path), "--output", str(output), *flags]) == 0
        return Page(output.read_text())

    return make


def test_a_record_is_shown_with_frames_and_nouns_in_its_colours(review):
    page = review([record(0)])
    assert len(page.sources) == 2 and all(uri.startswith("data:image/jpeg;base64,") for uri in page.sources)
    assert [mark for mark in page.marks if mark[1]] == [
        ("i0", "instance 0"), ("i1", "instance 1"), ("i0", "instance 0")
    ]  # fmt: skip
    assert "Is the dog near the laptop?" in page.text and "1 of 1 records, 0 of them with a problem" in page.text
    assert not {"link", "iframe"} & set(page.tags) and page.tags.count("script") == 1


def test_mentions_decide_the_colour(review):
    page = review([record(0, mentions=[1, 0, 1])])
    assert [mark[0] for mark in page.marks if mark[1]] == ["i1", "i0", "i1"]


def test_benches_are_shown_with_their_options(review):
    page = review(
        [BENCH_Q, {"id": 6, "video": "clip.mp4", "caption": "The <ins>dog</ins>.", "annotation": annotation(1)}]
    )
    assert [mark[0] for mark in page.marks if mark[1]] == ["i0", "i1", "i1", "i0"] and "(B) Nothing" in page.text


def test_whatever_a_text_holds_stays_text(review, tmp_path):
    evil = [{"file": EVIL, "position": 0, "id": EVIL, "reason": EVIL, "message": EVIL, "replies": [EVIL]}]
    (tmp_path / "rejected.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in evil))
    bad = record(0, index=EVIL, video=EVIL)
    bad["conversations"][1]["value"] = f"The <ins>dog {EVIL}</ins>." + EVIL
    bad["mentions"] = [0, 1, 0]
    page = review([bad])
    assert page.tags.count("script") == 1 and "img" not in page.tags and page.sources == []
    assert page.text.count('alert("x")') >= 7 and "no such video" in page.text


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium; install the distribution's package")
def test_what_is_rejected_in_a_browser_is_left_out_of_training(review, tmp_path, swim_cache):
    playwright = pytest.importorskip("playwright.sync_api")
    review([record(number) for number in range(3)])
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto((tmp_path / "review.html").as_uri())
        first, second, third = page.query_selector_all("article button")
        assert page.is_disabled("#save")
        for button in (first, third, first):  # the first is taken back
            button.click()
        page.reload()  # what was chosen is still known
        assert page.inner_text("#count") == "1 rejected"
        assert [button.inner_text() for button in page.query_selector_all("article button")] == ["reject"] * 2 + [
            "take back"
        ]
        page.query_selector_all("article button")[1].click()
        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(tmp_path / "skip_list.jsonl")
        browser.close()
    entries = [json.loads(line) for line in (tmp_path / "skip_list.jsonl").read_text().splitlines()]
    assert [(entry["file"], entry["position"]) for entry in entries] == [("refined.json", 1), ("refined.json", 2)]
    mixture = tmp_path / "data.yaml"
    mixture.write_text("datasets: [{json_path: refined.json, data_root: ., sampling_strategy: all}]")
    assert [row["position"] for row in load_mixture(mixture, 0, tmp_path / "skip_list.jsonl").dataset] == [0]


def test_bad_records_say_so(review):
    page = review([record(0, annotation=[]), record(1, video="none.mp4"), record(2, conversations=[]), record(3)])
    assert "4 of 4 records, 2 of them with a problem" in page.text
    assert "no such video" in page.text and "conversations" in page.text


def test_rejected_records_are_counted_and_sampled(review, tmp_path):
    entries = [
        {
            "file": "a.json",
            "position": n,
            "id": n,
            "reason": "placeholder left",
            "message": f"text {n}",
            "replies": ["r"],
        }
        for n in range(40)
    ]
    (tmp_path / "rejected.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    page = review([record(0)], "--sample", "3")
    assert "40 rejected" in page.text and "placeholder left40" in page.text
    assert len(re.findall(r"a\.json, record \d+", page.text)) == 3


def test_samples_are_drawn_by_seed_and_kept_in_order(tmp_path):
    path = tmp_path / "many.json"
    path.write_text(json.dumps([{"id": n} for n in range(200)]))
    draws = [[position for position, _ in sample_records(path, 10, seed)[0]] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2] and all(draw == sorted(draw) and len(set(draw)) == 10 for draw in draws)
    assert sample_records(path, 500, 0)[1] == 200 and len(sample_records(path, 500, 0)[0]) == 200


def test_what_cannot_be_shown_is_one_clear_line(tmp_path, capsys):
    assert main([str(tmp_path / "no.json"), "--output", str(tmp_path / "r.html")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "no such file" in error
