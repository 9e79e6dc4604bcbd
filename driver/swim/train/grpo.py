"""GRPO on video: TRL's trainer on our data path, with the mask loss as a term of its loss."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.nn.utils.rnn import pad_sequence
from trl import GRPOConfig, GRPOTrainer
from trl.models import unwrap_model_for_generation

from swim.attention.grounding import cells_on_object
from swim.data.collator import SwimCollator
from swim.data.records import Record, Turn
from swim.data.sample import Sample, TextSample
from swim.data.tokens import IGNORE
from swim.errors import DataError
from swim.models.supervision import GROUNDING_SUMS, encode_vision, named_terms
from swim.train.resumable import ResumableTrainer
from swim.train.rollouts import Prompt, completion_instances, read_prompts, visual_inputs
from swim.train.skipping import SkippedRecords, pack

SKIPPED = "a skipped record"


class SwimGRPOTrainer(ResumableTrainer, GRPOTrainer):
    """TRL's GRPO for prompts with a video, an image or text alone, and `mask_loss_weight` times the fork's mask loss.

    The rows of `train_dataset` are those of `load_mixture`; a prompt is a record's conversation up to its last answer. Each
    is decoded once per batch of completions, and seen once by the vision tower, which learns nothing: its output is shared
    by all completions of the prompt, by generation, and by the policy, the old policy and the reference model.

    The mask loss is of the policy's own forward over prompt and completion: the tagged nouns of the question, and of the
    completion where it says one of the record's tagged phrases word for word. GRPO's gradient goes through the sampled
    tokens alone, so that no reward could move the attention of the question's noun.

    skipped: where bad records are listed, whose completions teach nothing; None: a bad record ends the run.
    reward_funcs: of TRL's signature; besides prompts, completions and completion_ids they are given `prompt_of`, the Prompt
    of each completion, and `trainer`.
    """

    args: GRPOConfig
    _tag_names = ["swim", "trl", "grpo"]

    logged = ("reward", "mask_loss", "pointing", "inside", "kl")

    def __init__(
        self,
        *args,
        collator: SwimCollator,
        mask_loss_weight: float = 0.0,
        skipped: SkippedRecords | None = None,
        **kwargs,
    ):
        self.collator = collator
        self.mask_loss_weight = mask_loss_weight
        self.skipped = skipped
        super().__init__(*args, **kwargs)
        if self.use_vllm:
            raise ValueError("use_vllm: TRL's client of vLLM takes pictures and no videos; leave it out")
        # a sampled visual token would lack its pixels
        self.generation_config.suppress_tokens = list(collator.visual_ids)
        self._met_in_run = {"records": 0, "skipped_records": 0}
        self._rows: list[dict] = []  # that the batch of completions was drawn for
        self._prompts: list[Prompt] = []  # of each sequence of that batch
        self._sequences: list[int] = []  # of the micro-batch: places in _prompts
        self._mask_term: torch.Tensor | None = None
        self._policy_pass = False

    # ------------------------------------------------------------------------------------------------------------------
    # Exact resumption
    # ------------------------------------------------------------------------------------------------------------------

    def between_logs(self) -> dict[str, Any]:
        """What stands between two log lines, and the completions that are still to be learnt from."""
        every = (self.args.steps_per_generation or 1) * self.num_iterations
        open_batch = self._buffered_inputs is not None and self._step % every != 0
        return {
            "grpo_step": self._step,
            "metrics": {name: list(values) for name, values in self._metrics["train"].items()},
            "met_in_run": self._met_in_run,
            "completions": self._buffered_inputs if open_batch else None,
            "rows": self._rows if open_batch else [],
        }

    def restore_between_logs(self, saved: dict[str, Any]):
        self._step = saved["grpo_step"]
        self._metrics["train"].update(saved["metrics"])
        if saved["completions"] is not None:
            self._buffered_inputs, self._rows = saved["completions"], saved["rows"]
            self._prompts = self._read(self._rows, again=True)
        self._met_in_run = saved["met_in_run"]

    # ------------------------------------------------------------------------------------------------------------------
    # From rows to prompts
    # ------------------------------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._rows = [dict(row) for row in inputs]
        self._prompts = self._read(self._rows)
        self._sequences = list(range(len(inputs)))
        columns = [{"prompt": _messages(prompt), "prompt_of": prompt, "trainer": self} for prompt in self._prompts]
        output = super()._generate_and_score_completions(columns)
        # shuffled and split with the rest: which prompt a sequence of a micro-batch belongs to
        output["sequence"] = torch.arange(len(inputs), device=self.accelerator.device)
        return output

    def _read(self, rows: Sequence[dict], again: bool = False) -> list[Prompt]:
        """The prompt of each row; rows of one record share it. again: what is skipped has been listed before."""
        places: dict[tuple, int] = {}
        samples: list[Sample | TextSample] = []
        for row in rows:
            key = (row["file"], row["position"])
            if key not in places:
                places[key] = len(samples)
                samples.append(self._sample(row, again))
        prompts = read_prompts(self._encode_vision, self.collator, samples)
        return [prompts[places[row["file"], row["position"]]] for row in rows]

    def _sample(self, row: dict, again: bool = False) -> Sample | TextSample:
        """That of a row; of a bad one that is skipped text alone, without a question."""
        self._met_in_run["records"] += 1
        try:
            return self.collator.read(row)
        except DataError as error:
            if self.skipped is None:
                raise
            place = {"file": row["file"], "position": row["position"], "record": error.where}
            entry = {**place, "reason": error.reason, "message": error.message}
            if not again:
                self.skipped.write(pack([entry]), self.state.global_step)
            self._met_in_run["skipped_records"] += 1
            return TextSample(
                Record(SKIPPED, None, False, [Turn(role, "", [], []) for role in ("user", "assistant")], [])
            )

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        """TRL's, with no reward for the completions of a skipped record: such a group teaches nothing."""
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        left_out = [prompt.record.where == SKIPPED for prompt in self._prompts]
        rewards[self.accelerator.gather(torch.tensor(left_out, device=rewards.device))] = torch.nan
        if self.skipped is not None:
            met = torch.tensor(list(self._met_in_run.values()), device=rewards.device)
            self.skipped.check(*self.accelerator.reduce(met, "sum").tolist())
        return rewards

    def _encode_vision(self, *visuals):
        """The vision tower's output; under FSDP2 as a forward of the whole model, which gathers its weights."""
        if not isinstance(self.model_wrapped, FSDPModule):
            return encode_vision(self._policy(), *visuals)
        model: Any = self.model_wrapped
        if not hasattr(model, "encode_vision"):
            model.encode_vision = partial(encode_vision, self._policy())
            register_fsdp_forward_method(model, "encode_vision")
        return model.encode_vision(*visuals)

    def _policy(self):
        """The model without what wraps it."""
        model = self.accelerator.unwrap_model(self.model_wrapped)
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def _tokenize_prompts(self, prompts: list):
        return [prompt.tokens for prompt in self._prompts], None, {}

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        ids, mask = _left_padded(prompt_ids, self._tokenizer.pad_token_id)
        ids, mask = ids.to(self.accelerator.device), mask.to(self.accelerator.device)
        checkpointing: Any = self.args.gradient_checkpointing_kwargs
        unwrapping = unwrap_model_for_generation(
            self.model_wrapped,
            self.accelerator,
            gather_deepspeed3_params=self.args.ds3_gather_for_generation,
            generation_kwargs=self.generation_kwargs,
            gradient_checkpointing_kwargs=checkpointing,
        )
        with unwrapping as model, torch.no_grad(), self._dist.summon_full_params(self.model_wrapped, recurse=False):
            drawn = model.generate(
                input_ids=ids,
                attention_mask=mask,
                mm_token_type_ids=self._kinds(ids),
                **visual_inputs(self._prompts, ids.device),
                generation_config=self.generation_config,
            )
        return [self._ended(tokens) for tokens in drawn[:, ids.shape[1] :].tolist()], None

    def _ended(self, tokens: list[int]) -> list[int]:
        """Up to the end of the turn, that token included."""
        ends = (place for place, token in enumerate(tokens) if token in self.eos_token_ids)
        return tokens[: next(ends, len(tokens)) + 1]

    def _kinds(self, ids: torch.Tensor) -> torch.Tensor:
        """mm_token_type_ids: 1 for an image's token, 2 for a video's, else 0."""
        image, video = self.collator.visual_ids
        return (ids == image).long() + 2 * (ids == video).long()

    @torch.no_grad()
    def looks(self, completion_ids: list[list[int]]) -> list[float | None]:
        """For each completion of the batch, where its nouns look under the policy: the share of the fused map on the
        object, mean over tokens and annotated steps. 0 where it names no object; None where nothing is annotated."""
        size = self.args.per_device_train_batch_size
        found: list[float | None] = []
        for start in range(0, len(completion_ids), size):
            chunk = slice(start, start + size)
            found += self._looks(self._prompts[chunk], completion_ids[chunk])
        return found

    def _looks(self, prompts: list[Prompt], completions: list[list[int]]) -> list[float | None]:
        ids, mask = _left_padded(
            [[*prompt.tokens, *drawn] for prompt, drawn in zip(prompts, completions)], self._tokenizer.pad_token_id
        )
        ids, mask = ids.to(self.accelerator.device), mask.to(self.accelerator.device)
        named = torch.full_like(ids, IGNORE)
        for row, prompt, drawn in zip(named, prompts, completions):
            row[len(row) - len(drawn) :] = torch.from_numpy(completion_instances(self._tokenizer, prompt, drawn))
        supervision = self._supervision(prompts, ids, mask, named)
        outputs = self._forward(self.model_wrapped, prompts, ids, mask, **supervision)
        resolution = self.collator.settings.mask_resolution
        found: list[float | None] = []
        for number, index in enumerate(supervision["mask_index"]):
            if not index.any():
                found.append(None)
                continue
            covered = cells_on_object(supervision["ins_masks"][number], resolution)
            names = named[number][(named[number] != IGNORE) & (supervision["attn_labels"][number] != IGNORE)]
            found.append(_inside(outputs.attention_maps[number], covered, index, names.tolist()))
        return found

    # ------------------------------------------------------------------------------------------------------------------
    # The loss
    # ------------------------------------------------------------------------------------------------------------------

    def _compute_loss(self, model, inputs):
        self._sequences = inputs["sequence"].tolist()
        self._mask_term, self._policy_pass = None, True
        try:
            loss = super()._compute_loss(model, inputs)
        finally:
            self._policy_pass = False
        if self._mask_term is not None:
            steps = self.current_gradient_accumulation_steps if self.model.training else 1.0
            loss = loss + self.mask_loss_weight * self._mask_term / steps
        if self.model.training:
            self.guard.note(loss, None)
        return loss

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **_
    ):
        """(log-probabilities, entropies or None, None), float32[B, C] each, of the last `logits_to_keep` tokens.

        At most `batch_size` sequences at a time; 0 where the attention mask is.
        """
        size = batch_size or len(input_ids)
        parts = []
        for start in range(0, len(input_ids), size):
            chunk = slice(start, start + size)
            prompts = [self._prompts[place] for place in self._sequences[chunk]]
            parts.append(self._score(model, prompts, input_ids[chunk], attention_mask[chunk], logits_to_keep))
        log_probs, entropies = (torch.cat(each) for each in zip(*parts))
        return log_probs, entropies if compute_entropy else None, None

    def _score(self, model, prompts: list[Prompt], ids: torch.Tensor, mask: torch.Tensor, kept: int):
        labels = ids.masked_fill(mask == 0, IGNORE)
        labels[:, :-kept] = IGNORE
        supervised = self._policy_pass and self.mask_loss_weight != 0
        named = self._named(prompts, ids, mask, kept) if supervised else None
        supervision = self._supervision(prompts, ids, mask, named)
        outputs = self._forward(model, prompts, ids, mask, labels=labels, return_label_logits=True, **supervision)
        if supervised:
            self._mask_term = outputs.mask_loss
            self._note_grounding(outputs)
        logits = outputs.label_logits.float() / self.temperature
        every = logits.log_softmax(-1)
        answered = labels[:, -kept:] != IGNORE
        chosen = every.gather(1, labels[:, -kept:][answered][:, None])[:, 0]
        entropy = -(every.exp() * every).sum(-1)
        empty = chosen.new_zeros(answered.shape)
        return empty.masked_scatter(answered, chosen), empty.masked_scatter(answered, entropy)

    def _forward(self, model, prompts: list[Prompt], ids: torch.Tensor, mask: torch.Tensor, **more):
        """The model's output for one sequence of each prompt, with what the tower made of it. more: of the model's forward."""
        seen = visual_inputs(prompts, ids.device)
        positions = self._positions(ids, mask, seen)
        seen.pop("second_per_grid_ts", None)  # the positions have it in them
        return model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, **seen, **more)

    def _positions(self, ids: torch.Tensor, mask: torch.Tensor, seen: dict) -> torch.Tensor:
        inputs = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": self._kinds(ids)}
        names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
        given = inputs | {name: seen[name] for name in names if name in seen}
        on_host = {name: value.cpu() for name, value in given.items()}
        return self.collator.positions(on_host).to(ids.device)

    def _named(self, prompts: list[Prompt], ids: torch.Tensor, mask: torch.Tensor, kept: int) -> torch.Tensor:
        """int64[B, S]: the instance that each token names, of the question and of the last `kept` tokens."""
        named, end = torch.full_like(ids, IGNORE), ids.shape[1] - kept
        for number, prompt in enumerate(prompts):
            named[number, end - len(prompt.tokens) : end] = torch.from_numpy(prompt.named)
            drawn = ids[number, end:][mask[number, end:] == 1].tolist()
            found = completion_instances(self._tokenizer, prompt, drawn)
            named[number, end : end + len(drawn)] = torch.from_numpy(found)
        return named

    def _supervision(
        self, prompts: list[Prompt], ids: torch.Tensor, mask: torch.Tensor, named: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """The four supervision tensors; named: None supervises nothing."""
        masks, index = self.collator.stack_masks([prompt.sample for prompt in prompts])
        if named is None:
            masks, index, named = masks[:, :0], index[:, :0], torch.full_like(ids, IGNORE)
        return {
            "attn_labels": self.collator.behind_visual(ids, mask),
            "ins_contents_labels": named,
            "ins_masks": masks.to(ids.device),
            "mask_index": index.to(ids.device),
        }

    @torch.no_grad()
    def _note_grounding(self, outputs):
        """The mask loss and its terms, and pointing and inside where a pair was scored, among TRL's metrics."""
        mode = "train" if self.model.training else "eval"
        losses = {"mask_loss": outputs.mask_loss, **named_terms(outputs)}
        sums = self.accelerator.reduce(torch.stack([*outputs.grounding, *losses.values()]), "sum").tolist()
        grounding = dict(zip(GROUNDING_SUMS, sums))
        for name, total in zip(losses, sums[len(grounding) :]):
            self._metrics[mode][name].append(total / self.accelerator.num_processes)
        if grounding["scored"]:
            for name, total in (("pointing", "points"), ("inside", "inside")):
                self._metrics[mode][name].append(grounding[total] / grounding["scored"])


def _inside(maps: torch.Tensor, covered: torch.Tensor, index: torch.Tensor, instances: list[int]) -> float:
    """The mean share of a map on the object, over the tokens of a completion and its annotated steps; 0 without any.

    maps: float32[Q, T, H, W], one for each token whose instance is annotated in some step, in order. covered: bool[N, T,
    ...], the cells of an object. index: bool[N, T]. instances: what each naming token names.
    """
    shares: list[float] = []
    looking = (instance for instance in instances if index[instance].any())
    for instance, heat in zip(looking, maps.flatten(2)):
        cells = covered[instance].flatten(1)
        for step in (index[instance] & cells.any(1)).nonzero().flatten().tolist():
            total = heat[step].sum()
            shares.append(float((heat[step] * cells[step]).sum() / total) if total > 0 else 0.0)
    return sum(shares) / len(shares) if shares else 0.0


def _messages(prompt: Prompt) -> list[dict]:
    """The prompt as TRL logs it and hands it to rewards: the text of its conversation."""
    turns = prompt.record.turns[:-1]
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def _left_padded(sequences: list[list[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), int64[B, S]."""
    tokens = [torch.tensor(sequence) for sequence in sequences]
    ids = pad_sequence(tokens, batch_first=True, padding_value=padding, padding_side="left")
    ones = [torch.ones_like(each) for each in tokens]
    return ids, pad_sequence(ones, batch_first=True, padding_side="left")
