"""The page in a real headless browser: upload, ask, click a word, see another overlay; mistakes are told and forgiven."""

import json
import shutil
import socket

import numpy as np
import pytest

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("gradio")

from swim.attention.evidence import Fit, write_fits  # noqa: E402
from swim.data.masks import decode_mask  # noqa: E402
from swim.data.records import parse_record  # noqa: E402
from swim.demo.model import build_tiny_model  # noqa: E402
from swim.viewer.app import serve  # noqa: E402
from swim.viewer.marking import Marking  # noqa: E402
from swim.viewer.session import Session  # noqa: E402

from .test_session import SETTINGS, TAGGED, clip, session  # noqa: E402, F401

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium; install the distribution's package")
PATIENCE_MS = 60_000


def served(session, title: str, marking: Marking | None = None):  # noqa: F811
    """The address of a page while it is served."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = serve(session, title, [], "127.0.0.1", port, block=False, marking=marking)
    yield f"http://127.0.0.1:{port}"
    page.close()


@pytest.fixture(scope="module")
def address(session) -> str:  # noqa: F811
    yield from served(session, "tiny: where it looks")


@pytest.fixture(scope="module")
def address_of_two(tiny_model_dir, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("other")
    other = build_tiny_model(folder / "<b>base", seed=1)
    never = Fit([0.0] * 4, [1.0] * 4, [0.0] * 4, 0.0, 1.1)
    write_fits(folder / "evidence.json", str(tiny_model_dir), {"asked": never})
    yield from served(Session(str(tiny_model_dir), SETTINGS, 5, str(other), str(folder / "evidence.json")), "two")


@pytest.fixture
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    return opened(browser, address)


def opened(browser, address: str, width: int = 1250):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    page.hosts = set()
    page.on("request", lambda request: page.hosts.add(request.url.split("/")[2]))
    page.goto(address)
    return page


def ask(page, path: str | None, question: str):
    if path is not None:
        page.set_input_files("#clip input[type=file]", path)
        page.wait_for_selector("#clip .file-preview, #clip table, #clip .download-link")
    page.fill("#question textarea", question)
    page.click("#ask button, button#ask")


def words_of(page, component: str) -> list:
    page.wait_for_selector(f"#{component} .token.highlighted")
    return page.query_selector_all(f"#{component} .token.highlighted")


def shown(page, label: str, before: str = "") -> str:
    """The address of the overlay once the page names this word and the overlay is another one."""
    page.wait_for_function("label => document.querySelector('#what').innerText.startsWith(label)", arg=label)
    page.wait_for_function("old => (document.querySelector('#overlay video') || {}).src !== old", arg=before)
    return page.get_attribute("#overlay video", "src")


CHOSEN, DOUBTED = "245,158,11", "252,165,165"


def marked(page, colour: str = CHOSEN) -> list[str]:
    """The words that are marked in a colour."""
    script = """colour => [...document.querySelectorAll('.token.highlighted')]
        .filter(word => getComputedStyle(word).backgroundColor.match(/\\d+/g).slice(0, 3).join() === colour)
        .map(word => word.innerText)"""
    return page.evaluate(script, colour)


def still_of(page) -> bytes:
    return page.wait_for_selector("#still img").screenshot()


def test_a_word_is_clicked_in_a_real_browser(page, clip, address):  # noqa: F811
    ask(page, clip, TAGGED)
    words = words_of(page, "asked")
    assert [word.inner_text() for word in words] == ["What", "pattern", "does", "the", "red circle", "have"]
    first = shown(page, "red circle")
    picture = still_of(page)
    assert marked(page) == ["red circle"] and not page.is_visible("#problem")
    words[1].click()
    second = shown(page, "pattern, mean of layers 1 and 2: share of the clip's attention", first)
    assert marked(page) == ["pattern"]
    assert page.request.get(second).body() != page.request.get(first).body()
    page.wait_for_timeout(500)
    assert still_of(page) != picture
    assert page.hosts == {address.removeprefix("http://")}  # nothing comes from elsewhere


@pytest.mark.slow
def test_mistakes_are_told_as_they_are_and_the_next_question_works(page, clip, tmp_path, capfd):  # noqa: F811
    ask(page, None, TAGGED)
    page.wait_for_selector("#problem >> text=Choose a clip first")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    ask(page, str(broken), TAGGED)
    page.wait_for_selector("#problem >> text=broken.mp4: ")
    page.click("#clip button[aria-label='Clear'], #clip button[aria-label='Remove this file']")
    ask(page, clip, "  ")
    page.wait_for_selector("#problem >> text=the prompt is empty")
    ask(page, None, "Where is the <ins>dog & <b>cat</b>?")
    told = page.wait_for_selector("#problem >> text=unclosed").inner_text()
    assert told == "the clip: unclosed <ins> in 'Where is the <ins>dog & <b>cat</b>?'; add </ins> after the noun"
    ask(page, None, TAGGED)
    overlay = shown(page, "red circle")
    assert not page.is_visible("#problem")
    picture = still_of(page)
    page.fill("#step input[type=number]", "1")
    page.press("#step input[type=number]", "Enter")
    page.wait_for_timeout(1500)
    assert still_of(page) != picture
    page.click("text=relative")
    overlay = shown(page, "red circle, mean of layers 1 and 2: times the mean of all words", overlay)
    page.click("#layer >> text=layer 2")
    shown(page, "red circle, layer 2: times the mean of all words", overlay)
    ask(page, None, "Where is the <ins>dog?")
    page.wait_for_selector("#problem >> text=unclosed")
    page.wait_for_selector("#overlay video", state="detached")  # nothing old stands beside the error
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err and "Error" not in printed.err


@pytest.mark.slow
@pytest.mark.parametrize("width", [1250, 360])
def test_two_models_stand_side_by_side_on_any_screen(browser, address_of_two, clip, width):  # noqa: F811
    page = opened(browser, address_of_two, width)
    ask(page, clip, TAGGED)
    shown(page, "red circle")
    assert page.inner_text("#others").startswith("<b>base would answer: ")
    lines = page.inner_text("#what").splitlines()
    assert any(line.startswith("<b>base") for line in lines) and len(page.query_selector_all("#what .bar")) == 2
    page.wait_for_function("() => document.querySelector('#overlay video').videoWidth === 3 * 388")
    assert "evidence 0.50, asked without looking" in page.inner_text("#what")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for place in ("#overlay", "#still", "#what", "#asked"):
        box = page.query_selector(place).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
    for place in ("#still", "#overlay"):
        assert page.query_selector_all(f"{place} .icon-button-wrapper button") == []  # nothing covers a picture
    words_of(page, "asked")[1].click()
    shown(page, "pattern")
    assert marked(page) == ["pattern"] and marked(page, DOUBTED) == ["red circle"]


@pytest.mark.slow
def test_an_object_is_marked_in_the_page(browser, session, clip, tmp_path):  # noqa: F811
    marking = Marking(tmp_path / "records.json")
    served_page = served(session, "mark", marking)
    page = opened(browser, next(served_page))
    page.set_input_files("#clip input[type=file]", clip)
    page.click("#mark >> text=mark an object")
    page.wait_for_selector("#mark_picture img")
    for x, y in ((0.2, 0.2), (0.6, 0.2), (0.4, 0.7)):
        before = page.get_attribute("#mark_picture img", "src")
        box = page.query_selector("#mark_picture img").bounding_box()
        page.click("#mark_picture img", position={"x": x * box["width"], "y": y * box["height"]})
        page.wait_for_function("old => document.querySelector('#mark_picture img').src !== old", arg=before)
    page.click("#mark_add")
    page.wait_for_selector("#problem >> text=What is it called?")
    page.fill("#mark_phrase textarea", "the <ins>dog</ins>")
    page.click("#mark_add")
    page.wait_for_selector("#mark_told >> text=added with masks in 1 frame(s)")
    [raw] = json.loads(marking.file.read_text())
    mask = decode_mask(parse_record(raw, "here", tmp_path).instances[0][0], 168, 168)
    rows, columns = np.nonzero(mask)
    for found, expected in zip((columns.min(), columns.max(), rows.min(), rows.max()), (0.2, 0.6, 0.2, 0.7)):
        assert abs(found - expected * 168) < 3
    next(served_page, None)
