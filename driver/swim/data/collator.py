"""Samples to one batch: model inputs, labels and the four supervision tensors."""

import numpy as np
import torch
from transformers import Qwen2_5_VLModel
from transformers.video_utils import VideoMetadata

from swim.data.chat import ChatText, render_chat
from swim.data.errors import DataError
from swim.data.sample import DataSettings, Sample, SampleReader
from swim.data.tokens import IGNORE, answer_tokens, instance_tokens


class _Positions:
    """The model's own position rule without the model: its methods need nothing but the configuration."""

    get_rope_index = Qwen2_5_VLModel.get_rope_index
    get_vision_position_ids = Qwen2_5_VLModel.get_vision_position_ids

    def __init__(self, config):
        self.config = config


class SwimCollator:
    """Collates rows of the mixture (or samples) into the inputs of the supervised forward.

    B batch, S sequence, N, T, r * H, r * W as in the fork's attention_supervision.py:

    input_ids, attention_mask, labels, mm_token_type_ids: int64[B, S], padded on the right
    position_ids: int64[3, B, S]; whole numbers, since floats such as second_per_grid_ts lose digits in bf16 training
    pixel_values(_videos), image_grid_thw, video_grid_thw: as the processor makes them
    attn_labels, ins_contents_labels: int64[B, S]; ins_masks: float32[B, N, T, Hm, Wm]; mask_index: bool[B, N, T]
    """

    def __init__(self, processor, model_config, settings: DataSettings = DataSettings()):
        self.processor = processor
        self.settings = settings
        self.visual_ids = [model_config.image_token_id, model_config.video_token_id]
        vision = model_config.vision_config
        self.reader = SampleReader(settings, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        self.position_rule = _Positions(model_config)

    def __call__(self, rows: list) -> dict[str, torch.Tensor]:
        samples = [row if isinstance(row, Sample) else self.reader(row) for row in rows]
        chats = [self.render(sample) for sample in samples]
        inputs = self.encode(samples, [chat.text for chat in chats])
        offsets = inputs.pop("offset_mapping").numpy()
        replacements = inputs.pop("text_replacement_offsets")
        batch = {**inputs, "position_ids": self.positions(inputs)}
        batch.pop("second_per_grid_ts", None)
        batch["labels"] = torch.full_like(inputs["input_ids"], IGNORE)
        batch["attn_labels"] = self._behind_visual(inputs)
        batch["ins_contents_labels"] = torch.full_like(inputs["input_ids"], IGNORE)
        for number, (sample, chat) in enumerate(zip(samples, chats)):
            learnt, named = self._label(sample, chat, replacements[number], offsets[number])
            batch["labels"][number, learnt] = inputs["input_ids"][number, learnt]
            batch["ins_contents_labels"][number] = torch.from_numpy(named)
        batch["ins_masks"], batch["mask_index"] = self._stack_masks(samples)
        return batch

    def render(self, sample: Sample, add_generation_prompt: bool = False) -> ChatText:
        """The chat text of a sample; with `add_generation_prompt` without its last answer."""
        record = sample.record
        turns = record.turns[:-1] if add_generation_prompt else record.turns
        try:
            return render_chat(
                self.processor, turns, record.is_image, self.settings.system_prompt, add_generation_prompt
            )
        except DataError as error:
            raise error.at(record.where) from None

    def encode(self, samples: list[Sample], texts: list[str], padding_side: str = "right") -> dict[str, torch.Tensor]:
        """The processor's inputs for frames that are already sampled and sized."""
        images = [sample.clip.frames[0] for sample in samples if sample.record.is_image]
        clips = [sample.clip for sample in samples if not sample.record.is_image]
        metadata = [VideoMetadata(total_num_frames=c.total, fps=c.fps, frames_indices=c.numbers) for c in clips]
        videos = {"do_resize": False, "do_sample_frames": False, "video_metadata": metadata}
        return dict(
            self.processor(
                text=texts,
                images=images or None,
                videos=[clip.frames for clip in clips] or None,
                images_kwargs={"do_resize": False},
                videos_kwargs=videos if clips else {},
                return_text_replacement_offsets=True,
                text_kwargs={"padding": True, "padding_side": padding_side, "return_offsets_mapping": True},
                return_tensors="pt",
            )
        )

    def positions(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """int64[3, B, S]: the positions that the model itself would compute."""
        names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts", "attention_mask")
        given = {name: inputs[name] for name in names if name in inputs}
        return self.position_rule.get_rope_index(inputs["input_ids"], inputs["mm_token_type_ids"], **given)[0]

    def _behind_visual(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """attn_labels: the token ids of the text behind the last visual token, -100 elsewhere."""
        ids = inputs["input_ids"]
        visual = torch.isin(ids, torch.tensor(self.visual_ids))
        visual_from_here = visual.flip(1).cumsum(1).flip(1) > 0
        return torch.where(visual_from_here | (inputs["attention_mask"] == 0), IGNORE, ids)

    def _label(self, sample: Sample, chat: ChatText, replacements: list[dict], offsets: np.ndarray):
        try:
            return answer_tokens(chat, replacements, offsets), instance_tokens(chat, replacements, offsets)
        except DataError as error:
            raise error.at(sample.record.where) from None

    def _stack_masks(self, samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
        """(ins_masks, mask_index): each sample's masks in the first corner of the batch's largest grid."""
        resolution, cell = self.settings.mask_resolution, self.reader.cell_px
        grids = [[size // cell * resolution for size in sample.clip.frames.shape[2:]] for sample in samples]
        supervised = [sample for sample in samples if sample.masks is not None]
        instances = max([len(sample.masks) for sample in supervised], default=0)
        steps = max(-(-len(sample.clip.numbers) // self.reader.temporal_patch_size) for sample in samples)
        height, width = (max(sizes) for sizes in zip(*grids))
        masks = torch.zeros(len(samples), instances, steps, height, width)
        mask_index = torch.zeros(len(samples), instances, steps, dtype=torch.bool)
        for number, sample in enumerate(samples):
            if sample.masks is not None:
                count, length, rows, columns = sample.masks.shape
                masks[number, :count, :length, :rows, :columns] = torch.from_numpy(sample.masks)
                mask_index[number, :count, :length] = torch.from_numpy(sample.mask_index)
        return masks, mask_index
