"""The page: its layout, and what happens on each click."""

import tempfile
import uuid
from pathlib import Path

import gradio as gr
import numpy as np

from swim.attention.heat import NORMALISATIONS
from swim.errors import DataError
from swim.viewer.session import ALL_LAYERS, Heat, Seen, Session, overlay, pieces_of, still

QUESTION_KINDS, ANSWER_KINDS = ("tag", "question"), ("answer",)
CSS = ".token.highlighted { cursor: pointer } footer { display: none !important }"
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # no font from elsewhere


def build(session: Session, title: str, examples: list[tuple[str, str]]) -> gr.Blocks:
    """The page around a session. examples: (clip, question)."""
    folder = Path(tempfile.mkdtemp(prefix="swim_viewer_"))  # overlays; Gradio serves what lies in the temporary folder

    def ask(clip: str | None, question: str):
        if clip is None:
            raise gr.Error("Choose a clip first: upload one, or take an example.")
        if not question.strip():
            raise gr.Error("The question is empty. Ask something about the clip.")
        try:
            seen = session.ask(clip, question)
        except (DataError, ValueError) as error:
            raise gr.Error(str(error)) from None
        words = seen.reading.words
        asked, answered = (
            [(piece, None if number is None else "word") for piece, number in pieces_of(text, words, kinds)]
            for text, kinds in ((seen.question, QUESTION_KINDS), (seen.reading.answer, ANSWER_KINDS))
        )
        first = next(number for number, word in enumerate(words) if word.kind in QUESTION_KINDS)
        slider = gr.Slider(maximum=max(1, seen.steps - 1), value=0, interactive=seen.steps > 1)
        return seen, first, asked, answered or [("(nothing)", None)], slider

    def choose(seen: Seen, kinds: tuple[str, ...], event: gr.SelectData) -> int | dict:
        text = seen.question if kinds is QUESTION_KINDS else seen.reading.answer
        number = pieces_of(text, seen.reading.words, kinds)[event.index][1] if text else None
        return gr.skip() if number is None else number

    def show(seen: Seen | None, word: int | None, layer: str, normalisation: str, step: int):
        if seen is None or word is None:
            return gr.skip(), gr.skip(), gr.skip()
        heat = session.look(seen, word, None if layer == ALL_LAYERS else int(layer), normalisation)
        path = overlay(seen, heat, folder / f"{uuid.uuid4().hex}.mp4")
        return str(path), _still(seen, heat, step), f"**{heat.word.label}**, {layer}: {heat.scale.label}"

    def move(seen: Seen | None, word: int | None, layer: str, normalisation: str, step: int):
        if seen is None or word is None:
            return gr.skip()
        heat = session.look(seen, word, None if layer == ALL_LAYERS else int(layer), normalisation)
        return _still(seen, heat, step)

    with gr.Blocks(title=title, analytics_enabled=False) as page:
        seen, word = gr.State(None), gr.State(None)
        gr.Markdown(f"## {title}\nAsk about a clip, then click any word of the question or the answer.")
        with gr.Row():
            with gr.Column(scale=2):
                clip = gr.File(label="clip: a video or an image", type="filepath", elem_id="clip")
                question = gr.Textbox(
                    label="question", placeholder="What does the <ins>dog</ins> do?", elem_id="question"
                )
                button = gr.Button("Ask", variant="primary", elem_id="ask")
                if examples:
                    gr.Examples([list(example) for example in examples], [clip, question], label="examples")
                layer = gr.Radio([ALL_LAYERS, *map(str, session.layers)], value=ALL_LAYERS, label="layer")
                normalisation = gr.Radio(list(NORMALISATIONS), value="share", label="what the colours mean")
            with gr.Column(scale=3):
                asked = _clickable("question", "asked")
                answered = _clickable("answer", "answered")
                what = gr.Markdown("", elem_id="what")
                with gr.Row():
                    video = gr.Video(
                        label="where it looks",
                        show_label=False,
                        autoplay=True,
                        loop=True,
                        interactive=False,
                        elem_id="overlay",
                    )
                    with gr.Column():
                        picture = gr.Image(
                            label="one step", show_label=False, interactive=False, elem_id="still", format="png"
                        )
                        slider = gr.Slider(0, 1, value=0, step=1, label="temporal step", elem_id="step")
        drawn = [seen, word, layer, normalisation, slider]
        outputs = [video, picture, what]
        reading = [seen, word, asked, answered, slider]
        for event in (button.click, question.submit):
            event(ask, [clip, question], reading, api_visibility="private").success(
                show, drawn, outputs, api_visibility="private"
            )
        for words, kinds in ((asked, QUESTION_KINDS), (answered, ANSWER_KINDS)):

            def chosen(seen: Seen, event: gr.SelectData, kinds=kinds):
                return choose(seen, kinds, event)

            words.select(chosen, [seen], [word], api_visibility="private").success(
                show, drawn, outputs, api_visibility="private"
            )
        for choice in (layer, normalisation):
            choice.change(show, drawn, outputs, api_visibility="private")
        slider.change(move, drawn, [picture], api_visibility="private", show_progress="hidden")
    return page


def _clickable(label: str, elem_id: str) -> gr.HighlightedText:
    """A text whose words can be chosen."""
    return gr.HighlightedText(
        label=label,
        elem_id=elem_id,
        show_legend=False,
        show_inline_category=False,
        combine_adjacent=False,
        color_map={"word": "#fbbf24"},
    )


def _still(seen: Seen, heat: Heat, step: int) -> np.ndarray:
    return still(seen, heat, min(int(step), seen.steps - 1))


def serve(session: Session, title: str, examples: list[tuple[str, str]], host: str, port: int, block: bool = True):
    """Serves the page until it is stopped; with `block` false returns the running page."""
    page = build(session, title, examples)
    page.queue(default_concurrency_limit=1)  # one model, one request at a time
    folders = sorted({str(Path(clip).parent) for clip, _ in examples})
    page.launch(
        server_name=host,
        server_port=port,
        allowed_paths=folders,
        prevent_thread_lock=not block,
        quiet=not block,
        theme=THEME,
        css=CSS,
        footer_links=[],
    )
    return page
