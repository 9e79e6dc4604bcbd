"""The page in a real headless browser: upload, ask, click a word, see another overlay; mistakes are told and forgiven."""

import shutil
import socket

import pytest

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("gradio")

from swim.viewer.app import serve  # noqa: E402

from .test_session import TAGGED, clip, session  # noqa: E402, F401

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium; install the distribution's package")
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def address(session) -> str:  # noqa: F811
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = serve(session, "tiny: where it looks", [], "127.0.0.1", port, block=False)
    yield f"http://127.0.0.1:{port}"
    page.close()


@pytest.fixture
def page(address):
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1250, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        page.hosts = set()
        page.on("request", lambda request: page.hosts.add(request.url.split("/")[2]))
        page.goto(address)
        yield page
        browser.close()


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


def still_of(page) -> bytes:
    return page.wait_for_selector("#still img").screenshot()


def test_a_word_is_clicked_in_a_real_browser(page, clip, address):  # noqa: F811
    ask(page, clip, TAGGED)
    words = words_of(page, "asked")
    assert [word.inner_text() for word in words] == ["What", "pattern", "does", "the", "red circle", "have"]
    first = shown(page, "red circle")
    picture = still_of(page)
    words[1].click()
    second = shown(page, "pattern", first)
    assert page.request.get(second).body() != page.request.get(first).body()
    page.wait_for_timeout(500)
    assert still_of(page) != picture
    assert page.hosts == {address.removeprefix("http://")}  # nothing comes from elsewhere


@pytest.mark.slow
def test_mistakes_are_told_and_the_next_question_works(page, clip, tmp_path):  # noqa: F811
    ask(page, None, TAGGED)
    page.wait_for_selector("text=Choose a clip first")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    ask(page, str(broken), TAGGED)
    told = page.wait_for_selector("text=broken.mp4: ").inner_text()
    assert "Traceback" not in told
    page.click("#clip button[aria-label='Clear'], #clip button[aria-label='Remove this file']")
    ask(page, clip, "  ")
    page.wait_for_selector("text=The question is empty")
    ask(page, None, TAGGED)
    overlay = shown(page, "red circle")
    picture = still_of(page)
    page.fill("#step input[type=number]", "1")
    page.press("#step input[type=number]", "Enter")
    page.wait_for_timeout(1500)
    assert still_of(page) != picture
    page.click("text=relative")
    shown(page, "red circle, all layers: times the mean of all words", overlay)
