"""Samples to one batch: model inputs, labels and the four supervision tensors."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from swim.data.chat import ChatText, render_chat
from swim.data.mixture import row_record
from swim.data.records import Record, Turn
from swim.data.sample import Sample, SampleReader, TextSample
from swim.data.settings import DataSettings
from swim.data.tokens import IGNORE, answer_tokens, instance_tokens
from swim.errors import DataError, Reason
from swim.models.family import family_of
from swim.video.patches import with_fast_patches

# Of a batch: what is learnt from it, and not shown to the model.
TARGETS = ("labels", "attn_labels", "ins_contents_labels", "ins_masks", "mask_index")


class Encoded(NamedTuple):
    """What the processor makes of a batch.

    inputs: the model's, int64[B, S] and pixels.
    offsets: int64[B, S, 2], the characters of each token in the expanded text.
    replacements: for each text, how its placeholders were expanded; see `swim.data.tokens.place_in_expanded`.
    """

    inputs: dict[str, torch.Tensor]
    offsets: np.ndarray
    replacements: list[list[dict]]


class SwimCollator:
    """Collates rows of the mixture (or samples) into the inputs of the supervised forward.

    B batch, S sequence, N, T, r * H, r * W as in the fork's attention_supervision:

    input_ids, attention_mask, labels, mm_token_type_ids: int64[B, S], padded on the right
    position_ids: int64[3, B, S]; whole numbers, since floats such as second_per_grid_ts lose digits in bf16 training
    pixel_values(_videos), image_grid_thw, video_grid_thw: as the processor makes them
    attn_labels, ins_contents_labels: int64[B, S]; ins_masks: float32[B, N, T, Hm, Wm]; mask_index: bool[B, N, T]

    as_bytes: pixel_values_videos is uint8 and `pixel_range` comes with it; `swim.video.patches.float_patches` makes of them
    what the model reads.
    """

    def __init__(self, processor, model_config, settings: DataSettings = DataSettings(), as_bytes: bool = False):
        self.family = family_of(model_config)
        self.family.check_timing(settings.released_timing)
        self.processor = processor
        self._patching = with_fast_patches(processor, self.family.video_processor_class, as_bytes)
        self.settings = settings
        self.visual_ids = [model_config.image_token_id, model_config.video_token_id]
        self.reader = SampleReader.of_model(settings, model_config, self._step_tokens)
        self.position_rule = self.family.position_rule(model_config)

    def __call__(self, rows: list) -> dict[str, torch.Tensor]:
        samples = [row if isinstance(row, Sample | TextSample) else self.read(row) for row in rows]
        chats = [self.render(sample.record) for sample in samples]
        inputs, offsets, replacements = self.encode(samples, [chat.text for chat in chats])
        batch = {**inputs, "position_ids": self.positions(inputs)}
        batch.pop("second_per_grid_ts", None)
        batch["labels"] = torch.full_like(inputs["input_ids"], IGNORE)
        batch["attn_labels"] = self.behind_visual(inputs["input_ids"], inputs["attention_mask"])
        batch["ins_contents_labels"] = torch.full_like(inputs["input_ids"], IGNORE)
        for number, (sample, chat) in enumerate(zip(samples, chats)):
            try:
                learnt = answer_tokens(chat, replacements[number], offsets[number])
                named = instance_tokens(chat, replacements[number], offsets[number])
            except DataError as error:
                raise error.at(sample.record.where) from None
            batch["labels"][number, learnt] = inputs["input_ids"][number, learnt]
            batch["ins_contents_labels"][number] = torch.from_numpy(named)
        batch["ins_masks"], batch["mask_index"] = self.stack_masks(samples)
        return batch

    def read(self, row: dict | Record) -> Sample:
        """The sample of one row of the mixture, checked to the last token: whatever is wrong with it shows here.

        With `max_length` set the clip's pixels and frames shrink until text and visual fit. Raises DataError naming the
        record.
        """
        record = row if isinstance(row, Record) else row_record(row)
        _, room = self.measure(record)
        return self.reader.read(record, room)

    def measure(self, record: Record) -> tuple[int, int | None]:
        """(tokens of the text without its visual block, tokens that max_length leaves for it, None for any number).

        Raises DataError naming the record for a text that cannot be rendered, for a phrase that owns no token and for a
        text that is too long by itself.
        """
        try:
            chat = self.render(record)
            encoded = self.processor.tokenizer(chat.text, return_offsets_mapping=True, add_special_tokens=False)
            instance_tokens(chat, [], np.array(encoded["offset_mapping"]))
            tokens = len(encoded["input_ids"]) - 1  # the placeholder becomes the visual block
            return tokens, self._room_for_visual(tokens)
        except DataError as error:
            raise error.at(record.where) from None

    def empty_sample(self) -> TextSample:
        """Text alone and nothing to learn: what is left of a batch whose every record was skipped."""
        return TextSample(Record("an empty batch", None, False, [Turn("user", "", [], [])], []))

    def _step_tokens(self, seconds: float) -> int:
        """Text tokens beside the visual ones of a video's step at that time."""
        text = self.family.step_text(seconds)
        return len(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else 0

    def _room_for_visual(self, text_tokens: int) -> int | None:
        if self.settings.max_length is None:
            return None
        room = self.settings.max_length - text_tokens
        if room < 1:
            raise DataError(
                f"the text alone has {text_tokens} tokens, max_length is {self.settings.max_length}; raise it, or "
                "shorten the conversation",
                reason=Reason.TOO_LONG,
            )
        return room

    def render(self, record: Record, add_generation_prompt: bool = False) -> ChatText:
        """The chat text of a record; with `add_generation_prompt` without its last answer."""
        turns = record.turns[:-1] if add_generation_prompt else record.turns
        try:
            return render_chat(
                self.processor,
                turns,
                visual_kind(record),
                self.settings.system_prompt,
                add_generation_prompt,
                self.family.chat_text,
            )
        except DataError as error:
            raise error.at(record.where) from None

    def encode(self, samples: Sequence[Sample | TextSample], texts: list[str], padding_side: str = "right") -> Encoded:
        """The processor's inputs for frames that are already sampled and sized."""
        seen = [sample for sample in samples if isinstance(sample, Sample)]
        images = [sample.clip.frames[0] for sample in seen if sample.record.is_image]
        clips = [sample.clip for sample in seen if not sample.record.is_image]
        # copies: Qwen3-VL's processor fills up the last step in place
        metadata = [VideoMetadata(total_num_frames=c.total, fps=c.fps, frames_indices=[*c.numbers]) for c in clips]
        videos = {"do_resize": False, "do_sample_frames": False, "video_metadata": metadata}
        encoded = self._patching(
            text=texts,
            images=images or None,
            videos=[clip.frames for clip in clips] or None,
            images_kwargs={"do_resize": False},
            videos_kwargs=videos if clips else {},
            return_text_replacement_offsets=True,
            text_kwargs={"padding": True, "padding_side": padding_side, "return_offsets_mapping": True},
            return_tensors="pt",
        )
        inputs = dict(encoded)
        if self.settings.released_timing and "second_per_grid_ts" in inputs:
            inputs["second_per_grid_ts"] = torch.ones_like(inputs["second_per_grid_ts"])
        offsets, replacements = inputs.pop("offset_mapping").numpy(), inputs.pop("text_replacement_offsets")
        return Encoded(inputs, offsets, replacements)

    def positions(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """int64[3, B, S]: the positions that the model itself would compute."""
        names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts", "attention_mask")
        given = {name: inputs[name] for name in names if name in inputs}
        return self.position_rule.get_rope_index(inputs["input_ids"], inputs["mm_token_type_ids"], **given)[0]

    def behind_visual(self, ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """attn_labels: the token ids of the text after the last visual token, -100 elsewhere. Both int64[B, S]."""
        visual = torch.isin(ids, torch.tensor(self.visual_ids, device=ids.device))
        visual_from_here = visual.flip(1).cumsum(1).flip(1) > 0
        return torch.where(visual_from_here | (attention_mask == 0), IGNORE, ids)

    def stack_masks(self, samples: Sequence[Sample | TextSample]) -> tuple[torch.Tensor, torch.Tensor]:
        """(ins_masks, mask_index): each sample's masks in the first corner of the batch's largest grid."""
        resolution, cell = self.settings.mask_resolution, self.reader.cell_px
        clips = [sample.clip for sample in samples if isinstance(sample, Sample)]
        grids = [[size // cell * resolution for size in clip.frames.shape[2:]] for clip in clips] or [[0, 0]]
        grid_masks = [sample.masks if isinstance(sample, Sample) else None for sample in samples]
        instances = max([len(found.shares) for found in grid_masks if found is not None], default=0)
        steps = max([-(-len(clip.numbers) // self.reader.step_frames) for clip in clips], default=0)
        height, width = (max(sizes) for sizes in zip(*grids))
        masks = torch.zeros(len(samples), instances, steps, height, width)
        mask_index = torch.zeros(len(samples), instances, steps, dtype=torch.bool)
        for number, found in enumerate(grid_masks):
            if found is not None:
                count, length, rows, columns = found.shares.shape
                masks[number, :count, :length, :rows, :columns] = torch.from_numpy(found.shares)
                mask_index[number, :count, :length] = torch.from_numpy(found.index)
        return masks, mask_index


def visual_kind(record: Record) -> str | None:
    """ "video", "image" or None for text alone."""
    if record.path is None:
        return None
    return "image" if record.is_image else "video"
