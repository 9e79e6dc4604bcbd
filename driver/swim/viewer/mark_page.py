"""The part of the page that marks objects."""

from collections.abc import Callable

import gradio as gr

from swim.errors import DataError
from swim.viewer.marking import BESIDE, ON, Marking, Marks


def add_marking(marking: Marking, clip: gr.File, say: Callable[[str], dict], problem: gr.HTML):
    """Below a page's clip. say: the update of `problem` that shows an error, or none for ""."""
    with gr.Accordion("mark an object for training", open=False, elem_id="mark"):
        how = "corners of its outline" if marking.tracker is None else "the object: it is followed through the clip"
        gr.HTML(f"Choose a frame and click {how}; name it, then add it.")
        marks = gr.State(Marks())
        number = gr.Slider(0, 1, value=0, step=1, label="frame", elem_id="mark_frame")
        picture = gr.Image(
            label="frame", show_label=False, interactive=False, buttons=[], elem_id="mark_picture", format="png"
        )
        where = gr.Radio([ON, BESIDE], value=ON, label="the next click is", visible=marking.tracker is not None)
        phrase = gr.Textbox(label="phrase", placeholder="the <ins>dog</ins> on the bed", elem_id="mark_phrase")
        with gr.Row():
            clear = gr.Button("clear", elem_id="mark_clear")
            add = gr.Button("add", variant="primary", elem_id="mark_add")
        told = gr.HTML("", elem_id="mark_told")

    def opened(path: str | None):
        if path is None:
            return gr.Slider(maximum=1, value=0), None, Marks(), say("")
        try:
            total = marking.frame_count(path)
            return gr.Slider(maximum=max(1, total - 1), value=0), marking.picture(path, 0, Marks()), Marks(), say("")
        except DataError as error:
            return gr.skip(), None, Marks(), say(str(error))

    def draw(path: str | None, frame: int, kept: Marks):
        return (None, gr.skip()) if path is None else _tried(lambda: marking.picture(path, int(frame), kept), say)

    def clicked(path: str | None, frame: int, kept: Marks, on: str, event: gr.SelectData):
        if path is None:
            return gr.skip(), gr.skip(), gr.skip()
        x, y = event.index
        kept = kept.with_point(int(frame), float(x), float(y), on == ON)
        return (kept, *_tried(lambda: marking.picture(path, int(frame), kept), say))

    def added(path: str | None, words: str, kept: Marks):
        """(marks, what was done, error): an object that was added is not added twice."""
        try:
            if path is None:
                raise ValueError("Choose a clip first.")
            return Marks(), marking.add(path, words, kept), say("")
        except (DataError, ValueError) as error:
            return kept, "", say(str(error))

    clip.change(opened, [clip], [number, picture, marks, problem], api_visibility="private")
    number.release(draw, [clip, number, marks], [picture, problem], api_visibility="private")
    picture.select(clicked, [clip, number, marks, where], [marks, picture, problem], api_visibility="private")
    clear.click(lambda: Marks(), None, [marks], api_visibility="private").then(
        draw, [clip, number, marks], [picture, problem], api_visibility="private"
    )
    add.click(added, [clip, phrase, marks], [marks, told, problem], api_visibility="private").then(
        draw, [clip, number, marks], [picture, problem], api_visibility="private"
    )


def _tried(work: Callable, say: Callable[[str], dict]) -> tuple:
    try:
        return work(), say("")
    except DataError as error:
        return None, say(str(error))
