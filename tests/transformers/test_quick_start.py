"""The model card's quick start, word for word: stock processor and model, pixels from qwen-vl-utils."""

import numpy as np
import pytest
import torch
from PIL import Image
from qwen_vl_utils import process_vision_info
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.video_utils import VideoMetadata

from ..video.clips import moving_pictures, write_video
from .test_mrope import TOKENS_PER_SECOND, positions_by_hand


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths as text: 4 s and 3 s of video at 5 frames a second, and an image."""
    folder = tmp_path_factory.mktemp("quick_start")
    Image.fromarray(moving_pictures(1)[0]).save(folder / "image.png")
    names = {"first": 20, "second": 15}
    videos = {name: str(write_video(folder / f"{name}.mp4", moving_pictures(count))) for name, count in names.items()}
    return {**videos, "image": str(folder / "image.png")}


@pytest.fixture(scope="module")
def model(tiny_model_dir):
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model_dir).eval()


def user(*content) -> list[dict]:
    return [{"role": "user", "content": [*content, {"type": "text", "text": "What is the red one?"}]}]


def video(path: str, fps: float) -> dict:
    return {"type": "video", "video": path, "fps": fps, "resized_height": 56, "resized_width": 84}


def image(path: str) -> dict:
    return {"type": "image", "image": path, "resized_height": 56, "resized_width": 56}


CASES = {
    "one video": (lambda f: [user(video(f["first"], 1.0))], [1.0]),
    "a rate that is no whole number": (lambda f: [user(video(f["first"], 2.5))], [2.5]),
    "two videos": (lambda f: [user(video(f["first"], 1.0), video(f["second"], 2.0))], [1.0, 2.0]),
    "a batch of two texts": (lambda f: [user(video(f["first"], 2.0)), user(video(f["second"], 4 / 3))], [2.0, 4 / 3]),
    "an image and a video": (lambda f: [user(image(f["image"]), video(f["first"], 1.0))], [1.0]),
    "images alone": (lambda f: [user(image(f["image"]))], []),
}


@pytest.mark.parametrize("name", CASES)
def test_the_quick_start_runs_and_positions_follow_the_rate(files, model, tiny_processor, name):
    make, rates = CASES[name]
    messages, processor = make(files), tiny_processor
    text = [processor.apply_chat_template(one, tokenize=False, add_generation_prompt=True) for one in messages]
    image_inputs, video_inputs, video_kwargs = process_vision_info(messages, return_video_kwargs=True)
    assert video_kwargs == {"do_sample_frames": False, "fps": pytest.approx(rates)}
    inputs = processor(
        text=text,
        images=image_inputs,
        videos=video_inputs,
        padding=True,
        padding_side="left",
        return_tensors="pt",
        **video_kwargs,
    )
    seen = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["position_ids"]), with_kwargs=True
    )
    generated = model.generate(**inputs.to(model.device), max_new_tokens=4, do_sample=False)
    hook.remove()
    assert inputs["input_ids"].shape[1] < generated.shape[1] <= inputs["input_ids"].shape[1] + 4
    if rates:
        assert inputs["second_per_grid_ts"].tolist() == pytest.approx([2 / rate for rate in rates])
    speed = model.config.vision_config.tokens_per_second / TOKENS_PER_SECOND  # of this model, against that of the rule
    seconds = iter([2 / rate * speed for rate in rates])
    grids = {kind: iter(inputs.get(f"{kind}_grid_thw", torch.empty(0, 3)).tolist()) for kind in ("image", "video")}
    for number, message in enumerate(messages):
        kinds = inputs["mm_token_type_ids"][number][inputs["attention_mask"][number].bool()].tolist()
        blocks = [part["type"] for part in message[0]["content"]]
        mine = {kind: [next(grids[kind]) for _ in range(blocks.count(kind))] for kind in grids}
        expected = positions_by_hand(kinds, mine["image"], mine["video"], [next(seconds) for _ in mine["video"]])
        real = inputs["attention_mask"][number].bool()
        assert seen[0][-3:, number, real].tolist() == expected.tolist()


@pytest.fixture
def process(tiny_processor):
    """Function: second_per_grid_ts of videos of 8 frames for the processor's further arguments."""
    frames = np.zeros((8, 56, 56, 3), np.uint8)
    prompt = "<|vision_start|><|video_pad|><|vision_end|>"

    def run(videos: int, **arguments) -> list[float]:
        inputs = tiny_processor(
            text=[prompt * videos], videos=[frames] * videos, do_resize=False, return_tensors="pt", **arguments
        )
        assert inputs["video_grid_thw"][:, 0].tolist() == [arguments.get("num_frames", 8) // 2] * videos
        return inputs["second_per_grid_ts"].tolist()

    return run


def test_a_number_counts_for_every_video(process):
    assert process(2, fps=4.0) == process(2, fps=4) == process(2, fps=[4, 4.0]) == process(2, fps=(4, 4)) == [0.5, 0.5]
    assert process(1) == pytest.approx([2 / 24])  # as upstream


def test_metadata_that_has_a_rate_wins(process):
    known = VideoMetadata(total_num_frames=80, fps=10.0, frames_indices=list(range(0, 80, 10)))
    unknown = VideoMetadata(total_num_frames=8, frames_indices=list(range(8)))
    assert process(2, fps=[4.0, 4.0], video_metadata=[known, unknown]) == [2.0, 0.5]
    assert process(2, fps=4.0, video_metadata=[known, unknown]) == [2.0, 0.5]
    assert process(2, video_metadata=[known, known]) == [2.0, 2.0]


@pytest.mark.parametrize("fps", [[], [2.0], [2.0, 2.0, 2.0], [2.0, 0.0], [2.0, -1.0]])
def test_rates_that_do_not_fit_the_videos_are_refused(process, fps):
    with pytest.raises(ValueError, match="a positive rate for each of the 2 videos, got"):
        process(2, fps=fps)
    known = VideoMetadata(total_num_frames=8, fps=10.0, frames_indices=list(range(8)))
    with pytest.raises(ValueError, match="a positive rate for each of the 2 videos, got"):
        process(2, fps=fps, video_metadata=[known, known])


def test_a_number_still_samples_and_a_list_cannot(tiny_processor):
    frames = np.zeros((40, 56, 56, 3), np.uint8)
    known = [VideoMetadata(total_num_frames=40, fps=10.0)]
    arguments = {"text": "<|video_pad|>", "videos": [frames], "do_resize": False, "video_metadata": known}
    inputs = tiny_processor(**arguments, do_sample_frames=True, fps=2.0)
    assert inputs["video_grid_thw"].tolist() == [[4, 4, 4]]
    assert inputs["second_per_grid_ts"] == [1.0]
    with pytest.raises(ValueError, match="`do_sample_frames=True` takes a number as `fps`"):
        tiny_processor(**arguments, do_sample_frames=True, fps=[2.0])
