"""The page: its layout, and what happens on each click."""

import tempfile
import uuid
from html import escape
from pathlib import Path

import gradio as gr
import numpy as np
import torch

from swim.attention.heat import NORMALISATIONS
from swim.attention.paint import colour_strip
from swim.data.tags import strip_tags
from swim.errors import DataError
from swim.viewer.mark_page import add_marking
from swim.viewer.marking import Marking
from swim.viewer.session import Heat, Seen, Session, overlay, pieces_of, still

ALL_LAYERS = "all layers"
QUESTION_KINDS, ANSWER_KINDS = ("tag", "question"), ("answer",)
WORD, CHOSEN, DOUBTED = "word", "chosen", "doubted"
CSS = """
footer { display: none !important }
.token.highlighted { cursor: pointer; border-radius: 4px; margin: 0; padding: 0 2px }
#problem { color: #b91c1c; border-left: 4px solid #b91c1c; padding: 6px 12px; overflow-wrap: anywhere }
#what { overflow-wrap: anywhere }
.scale { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 8px; margin-top: 4px }
.scale .bar { flex: 1 1 120px; max-width: 260px; height: 12px; border-radius: 3px }
"""
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # no font from elsewhere
_NOTHING = [("(nothing)", None)]

Pieces = list[tuple[str, str | None]]


def build(session: Session, title: str, examples: list[tuple[str, str]], marking: Marking | None = None) -> gr.Blocks:
    """The page around a session. examples: (clip, question). marking: where marked objects go, None where none are."""
    folder = Path(tempfile.mkdtemp(prefix="swim_viewer_"))  # overlays; Gradio serves what lies in the temporary folder

    def ask(clip: str | None, question: str):
        """What stands on the page: (seen, word, error, slider). An error leaves nothing seen."""
        try:
            seen = session.ask(_given(clip), question)
        except (DataError, ValueError) as error:
            return None, None, _problem(str(error)), gr.skip()
        except torch.OutOfMemoryError:
            told = "the GPU's memory is too small for this clip; start the viewer with a lower --max_frames or --max_pixels"
            return None, None, _problem(told), gr.skip()
        words = seen.reading.words
        first = next((number for number, word in enumerate(words) if word.kind in QUESTION_KINDS), 0)
        slider = gr.Slider(maximum=max(1, seen.steps - 1), value=0, interactive=seen.steps > 1)
        return seen, first, _problem(""), slider

    def write(seen: Seen | None, word: int | None):
        """The question and the answers, the chosen word marked: (asked, answered, answers of other models)."""
        if seen is None or word is None:
            return [], [], ""
        asked, answered = _pieces(seen, word, QUESTION_KINDS), _pieces(seen, word, ANSWER_KINDS)
        return asked, answered or _NOTHING, _other_answers(session.names[1:], seen.answers)

    def show(seen: Seen | None, word: int | None, layer: str, normalisation: str, step: int):
        """(overlay, still picture, what they show, error)."""
        if seen is None or word is None:
            return None, None, "", gr.skip()
        heats = session.look(seen, word, _layer(layer), normalisation)
        try:
            path = overlay(seen, heats, folder / f"{uuid.uuid4().hex}.mp4")
        except DataError as error:
            return None, None, "", _problem(f"{error}; choose the clip again")
        meaning = _meaning(session, heats, _layer(layer)) + _evidence(seen, word)
        return str(path), _still(seen, heats, step), meaning, _problem("")

    def move(seen: Seen | None, word: int | None, layer: str, normalisation: str, step: int):
        if seen is None or word is None:
            return gr.skip()
        return _still(seen, session.look(seen, word, _layer(layer), normalisation), step)

    with gr.Blocks(title=title, analytics_enabled=False) as page:
        seen, word = gr.State(None), gr.State(None)
        gr.HTML(f"<h2>{escape(title)}</h2>Ask about a clip, then click any word of the question or the answer.")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                clip = gr.File(label="clip: a video or an image", type="filepath", elem_id="clip", height=110)
                question = gr.Textbox(
                    label="question", placeholder="What does the <ins>dog</ins> do?", elem_id="question"
                )
                button = gr.Button("Ask", variant="primary", elem_id="ask")
                problem = gr.HTML("", elem_id="problem", visible=False)
                if examples:
                    given, labels = (
                        [list(example) for example in examples],
                        [strip_tags(text)[0] for _, text in examples],
                    )
                    gr.Examples(given, [clip, question], label="examples", example_labels=labels)
            with gr.Column(scale=3, min_width=300):
                asked = _clickable("question", "asked")
                answered = _clickable(f"answer of {session.names[0]}", "answered")
                others = gr.HTML("", elem_id="others")
                layers = [(ALL_LAYERS, ALL_LAYERS), *((f"layer {layer}", str(layer)) for layer in session.layers)]
                layer = gr.Radio(layers, value=ALL_LAYERS, label="which map", elem_id="layer")
                normalisation = gr.Radio(list(NORMALISATIONS), value="share", label="what the colours mean")
                what = gr.HTML("", elem_id="what")
                video = gr.Video(
                    label="where it looks",
                    show_label=False,
                    autoplay=True,
                    loop=True,
                    interactive=False,
                    buttons=[],
                    elem_id="overlay",
                )
                slider = gr.Slider(0, 1, value=0, step=1, label="temporal step", elem_id="step")
                picture = gr.Image(
                    label="one step", show_label=False, interactive=False, buttons=[], elem_id="still", format="png"
                )
        if marking is not None:
            add_marking(marking, clip, _problem, problem)
        drawn = [seen, word, layer, normalisation, slider]
        texts, outputs = [asked, answered, others], [video, picture, what, problem]

        def then_show(event, marks: bool):
            """After an event the pictures are drawn anew; where it chose a word, that is marked first."""
            marked = event.success(write, [seen, word], texts, api_visibility="private") if marks else event
            marked.success(show, drawn, outputs, api_visibility="private")

        for event in (button.click, question.submit):
            then_show(event(ask, [clip, question], [seen, word, problem, slider], api_visibility="private"), True)
        for text, kinds in ((asked, QUESTION_KINDS), (answered, ANSWER_KINDS)):

            def chosen(seen: Seen | None, event: gr.SelectData, kinds=kinds):
                return gr.skip() if seen is None else _word_at(seen, kinds, event.index)

            then_show(text.select(chosen, [seen], [word], api_visibility="private"), True)
        for choice in (layer, normalisation):
            choice.change(show, drawn, outputs, api_visibility="private")
        slider.change(move, drawn, [picture], api_visibility="private", show_progress="hidden")
    return page


def _given(clip: str | None) -> str:
    if clip is None:
        raise ValueError("Choose a clip first: upload one, or take an example.")
    return clip


def _problem(text: str) -> dict:
    """The page's place for errors, with this text as it is, or hidden."""
    return gr.update(value=escape(text), visible=bool(text))


def _clickable(label: str, elem_id: str) -> gr.HighlightedText:
    """A text whose words can be chosen."""
    return gr.HighlightedText(
        label=label,
        elem_id=elem_id,
        show_legend=False,
        show_inline_category=False,
        combine_adjacent=False,
        color_map={WORD: "#e5e7eb", CHOSEN: "#f59e0b", DOUBTED: "#fca5a5"},
        buttons=[],
    )


def _pieces(seen: Seen, chosen: int, kinds: tuple[str, ...]) -> Pieces:
    """A text as it is shown: its words, those without evidence, and the chosen one, each under its own name."""
    marks: dict[int | None, str | None] = {
        number: DOUBTED for number, found in seen.judgements.items() if not found.looked
    }
    marks |= {None: None, chosen: CHOSEN}
    return [(piece, marks.get(number, WORD)) for piece, number in _numbered(seen, kinds)]


def _numbered(seen: Seen, kinds: tuple[str, ...]) -> list[tuple[str, int | None]]:
    text = seen.question if kinds is QUESTION_KINDS else seen.reading.answer
    return pieces_of(text, seen.reading.words, kinds)


def _word_at(seen: Seen, kinds: tuple[str, ...], place: int):
    """The number of the word that is this piece of a text; nothing changes for what stands between words."""
    pieces = _numbered(seen, kinds)
    number = pieces[place][1] if place < len(pieces) else None
    return gr.skip() if number is None else number


def _layer(choice: str) -> int | None:
    return None if choice == ALL_LAYERS else int(choice)


def _other_answers(names: list[str], answers: list[str]) -> str:
    return "".join(
        f"<p><b>{escape(name)}</b> would answer: {escape(answer) or '(nothing)'}</p>"
        for name, answer in zip(names, answers)
    )


def _meaning(session: Session, heats: list[Heat], layer: int | None) -> str:
    """HTML: which word and map is shown, and the colour bar of each model."""
    label = heats[0].scale.label
    lines = [f"<b>{escape(heats[0].word.label)}</b>, {escape(session.describe(layer))}: {escape(label)}"]
    stops = ", ".join(f"rgb({red}, {green}, {blue})" for red, green, blue in colour_strip(1, 9)[0])
    for look in heats:
        share = label.startswith("share")
        highest = f"{100 * look.scale.highest:.2g} %" if share else f"{look.scale.highest:.3g}"
        bar = f'<span class="bar" style="background: linear-gradient(to right, {stops})"></span>'
        lines.append(f'<div class="scale">{escape(look.model)}: <span>0</span>{bar}<span>{highest}</span></div>')
    return "".join(lines)


def _evidence(seen: Seen, word: int) -> str:
    """HTML: how well the video supports a word, where that was judged."""
    if word not in seen.judgements:
        return ""
    found = seen.judgements[word]
    flag = "" if found.looked else f", <b>{found.place} without looking</b>"
    return f"<div>evidence {found.probability:.2f}{flag}</div>"


def _still(seen: Seen, heats: list[Heat], step: int) -> np.ndarray:
    return still(seen, heats, min(int(step), seen.steps - 1))


def serve(
    session: Session,
    title: str,
    examples: list[tuple[str, str]],
    host: str,
    port: int,
    block: bool = True,
    marking: Marking | None = None,
):
    """Serves the page until it is stopped; with `block` false returns the running page."""
    page = build(session, title, examples, marking)
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
