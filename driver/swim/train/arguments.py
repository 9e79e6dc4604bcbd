"""Every argument of TRL's SFTConfig and GRPOConfig: honoured, fixed, an alias of another, or refused with what to do instead.

An argument that is accepted and ignored would mislead the user about what ran. A test fails when a new release of TRL
or transformers adds an argument that no table here names.
"""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from transformers import TrainingArguments
from trl import GRPOConfig, SFTConfig

from swim.options import NO_VALUE

# Set by the trainer: another value would be overridden, or break a guarantee.
FIXED = {
    "dataset_kwargs": {"skip_prepare_dataset": True},  # rows stay raw; the collator decodes them
    "remove_unused_columns": False,
    "max_length": None,  # TRL would truncate the visual block; our key of this name shrinks it
    "prediction_loss_only": True,
    "label_names": ["labels"],
    "ddp_find_unused_parameters": False,
    "logging_nan_inf_filter": False,  # it would hide the faults that swim.train.faults stops on
}

# Old names from transformers that TRL still accepts -> the current name.
ALIASES = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
# Earlier names of our own keys.
RENAMED = {"demo_report": "report"}

HONOURED = frozenset(
    """
    output_dir num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps
    learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps
    optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm
    bf16 tf32 activation_checkpointing activation_checkpointing_kwargs torch_empty_cache_steps
    torch_compile torch_compile_backend torch_compile_mode neftune_noise_alpha
    logging_strategy logging_steps logging_first_step log_on_each_node include_num_input_tokens_seen
    log_level log_level_replica disable_tqdm report_to run_name project
    trackio_space_id trackio_bucket_id trackio_static_space_id
    save_strategy save_steps save_total_limit resume_from_checkpoint ignore_data_skip
    full_determinism seed data_seed use_cpu debug skip_memory_metrics
    dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers
    dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order train_sampling_strategy
    ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed
    """.split()
)

# Honoured only if something is evaluated during training.
NEED_EVALUATION = frozenset(
    """
    eval_strategy eval_steps eval_delay eval_on_start per_device_eval_batch_size
    load_best_model_at_end metric_for_best_model greater_is_better
    """.split()
)

# Honoured only if worker processes read the data.
_NEED_WORKERS = frozenset(
    ("dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_multiprocessing_context")
)

_OUR_LOSS = "the loss is the fork's, text_loss_weight * text_loss + mask_loss_weight * mask_loss"
_OUR_DATA = "data_config says which records to read, and they are rendered with the processor's own chat template"
_NO_PACKING = "each sample stays separate, with its own visual block and masks"
_NO_METRICS = "evaluation computes only losses and pointing, not predictions"
_EXPORT = "upload after training with swim export RUN --output DIR --push_to_hub OWNER/NAME"
_OWN_MODEL_KEYS = "use dtype and attn_implementation to say how the model is loaded"

# Refused unless set to its default: argument -> why, and what to do instead.
REFUSED = {
    "label_smoothing_factor": _OUR_LOSS,
    "loss_type": _OUR_LOSS,
    "router_aux_loss_coef": _OUR_LOSS,
    "average_tokens_across_devices": "losses are averaged with equal weight over micro-batches and processes",
    "completion_only_loss": "the loss always covers the answers only",
    "assistant_only_loss": "the loss always covers the answers only",
    "packing": _NO_PACKING,
    "packing_strategy": _NO_PACKING,
    "eval_packing": _NO_PACKING,
    "padding_free": _NO_PACKING,
    "pad_to_multiple_of": "each batch is padded to the length of its longest sample",
    "pad_token": _OUR_DATA,
    "eos_token": _OUR_DATA,
    "chat_template_path": _OUR_DATA,
    "dataset_text_field": _OUR_DATA,
    "dataset_num_proc": "use dataloader_num_workers to set how many processes read records",
    "shuffle_dataset": "every epoch is shuffled; use train_sampling_strategy: sequential to keep the order",
    "truncation_mode": "nothing is truncated; max_length reduces pixels and frames instead",
    "length_column_name": "the length of a sample is not known until its video has been read; lengths names a file of them",
    "use_liger_kernel": "Liger's kernels do not work with this release; text loss is computed at labelled positions only anyway",
    "liger_kernel_config": "Liger's kernels do not work with this release",
    "activation_offloading": "use activation_checkpointing instead",
    "use_cache": "training never uses a key-value cache",
    "fp16": "fp16 relies on skipping steps that overflow, and here an overflow ends the run; use bf16",
    "bf16_full_eval": "evaluation runs during training, in the same precision; use bf16",
    "fp16_full_eval": "evaluation runs during training, in the same precision; use bf16",
    "auto_find_batch_size": "a restart in the middle of a run would lose its place in the data; set per_device_train_batch_size",
    "optim_target_modules": "only some optimisers choose their own parameters; use train and learning_rates to choose them here",
    "eval_do_concat_batches": _NO_METRICS,
    "eval_use_gather_object": _NO_METRICS,
    "eval_accumulation_steps": _NO_METRICS,
    "include_for_metrics": _NO_METRICS,
    "batch_eval_metrics": _NO_METRICS,
    "save_only_model": "such checkpoints cannot be resumed; the folder of a finished run contains only the model anyway",
    "save_on_each_node": "output_dir is shared by all nodes",
    "enable_jit_checkpoint": "SIGTERM and SIGUSR1 already save a checkpoint",
    "restore_callback_states_from_checkpoint": "resuming always restores everything the run needs",
    "push_to_hub": _EXPORT,
    "hub_token": "set HF_TOKEN in the environment; swim export uses it",
    "hub_private_repo": _EXPORT,
    "hub_model_id": _EXPORT,
    "hub_strategy": _EXPORT,
    "hub_always_push": _EXPORT,
    "hub_revision": _EXPORT,
    "accelerator_config": "how batches are split and dispatched is fixed so that a run can be resumed exactly",
    "parallelism_config": "use DDP, deepspeed or fsdp to run on several processes",
    "model_init_kwargs": _OWN_MODEL_KEYS,
    "trust_remote_code": "code that comes with a model is never executed",
    "do_train": "swim train always trains; remove the key",
    "do_eval": "use eval_grounding to say what is evaluated; remove the key",
    "do_predict": "use swim infer to answer questions; remove the key",
    "local_rank": "the launcher sets it; start with NPROC=8 bash run_scripts/run_sft.sh",
}

_PARTS = "use train to list the parts that learn; by default only the language model does, the rest is frozen"

# Names that other trainers use -> what to write here.
OTHER_NAMES = {
    "use_peft": "to train adapters, put lora: {} in the YAML file or pass --lora.r 16",
    "lora_r": "write lora.r",
    "lora_rank": "write lora.r",
    "lora_alpha": "write lora.alpha",
    "lora_dropout": "write lora.dropout",
    "lora_target_modules": "adapters always go on the language model's attention and MLP projections",
    "load_in_4bit": "quantised training is not supported; --lora.r 16 with ZeRO-3 offload needs the least memory",
    "load_in_8bit": "quantised training is not supported; --lora.r 16 with ZeRO-3 offload needs the least memory",
    "torch_dtype": "write dtype for the loaded weights; bf16 sets the precision of training",
    "attn_impl": "write attn_implementation",
    "use_flash_attn": "write attn_implementation: flash_attention_2; auto uses it if it is installed",
    "dataset_name": "write data_config, the path of a YAML file that lists your record files",
    "dataset": "write data_config, the path of a YAML file that lists your record files",
    "dataset_path": "write data_config, the path of a YAML file that lists your record files",
    "freeze_vision_tower": _PARTS,
    "freeze_vision_modules": _PARTS,
    "freeze_llm": _PARTS,
    "freeze_multi_modal_projector": _PARTS,
    "tune_mm_vision": _PARTS,
    "tune_mm_mlp": _PARTS,
    "tune_mm_llm": _PARTS,
    "model": "write model_name_or_path",
    "cutoff_len": "write max_length, which reduces pixels and frames instead of truncating",
    "model_max_length": "write max_length, which reduces pixels and frames instead of truncating",
    "video_max_frames": "write max_frames",
    "nframes": "write max_frames",
    "video_fps": "write fps",
}

# Values of HONOURED arguments that are not available: argument -> (beginnings of the value, why).
_REFUSED_VALUES = {
    "train_sampling_strategy": (
        ("group_by_length", "batch_rebalance"),
        "it would change which samples form a step, or their weights; use random, and lengths to sort each step's samples",
    ),
    "optim": (
        ("galore", "apollo", "lomo", "adalomo"),
        "these optimisers choose their own parameters; use train and learning_rates to choose them",
    ),
}
_Count = Annotated[int, Field(ge=1)]
# Numbers that TRL and torch take as they come, to train wrongly without a word: a negative rate climbs, a negative norm
# turns the gradient round, no batch at all trains on nothing. kind -> arguments.
_NUMBERS: dict[Any, str] = {
    _Count: """
        per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps ddp_timeout ddp_bucket_cap_mb
        dataloader_prefetch_factor torch_empty_cache_steps
        steps_per_generation num_iterations max_completion_length num_completions_to_print
    """,
    Literal[-1] | _Count: "max_steps",
    Annotated[int, Field(ge=0)]: "dataloader_num_workers seed data_seed top_k",
    Annotated[float, Field(ge=0, allow_inf_nan=False)]: """
        learning_rate weight_decay max_grad_norm warmup_steps eval_delay neftune_noise_alpha
        beta epsilon epsilon_high delta
    """,
    Annotated[float, Field(gt=0, allow_inf_nan=False)]: """
        num_train_epochs logging_steps save_steps eval_steps adam_epsilon temperature repetition_penalty
    """,
    Annotated[float, Field(ge=0, lt=1)]: "adam_beta1 adam_beta2",
    Annotated[float, Field(ge=0, le=1)]: "top_p min_p top_entropy_quantile",
}
_NUMBER_OF = {name: TypeAdapter(kind | None) for kind, names in _NUMBERS.items() for name in names.split()}
_SWITCHES = {"fsdp", "scale_rewards", "resume_from_checkpoint"}  # whose annotation does not say that they are
# Stating what happens anyway is not an error.
_ALSO_TRUE = {"completion_only_loss": (True,), "assistant_only_loss": (True,)}


@dataclass(frozen=True)
class Arguments:
    """What is done with the arguments of one of TRL's configurations.

    kind: the configuration. fixed: set by the trainer. honoured: taken as they are. refused: why, and what to do instead.
    """

    kind: type[TrainingArguments]
    fixed: Mapping[str, Any]
    honoured: frozenset[str]
    refused: Mapping[str, str]

    def defaults(self) -> dict[str, Any]:
        """The configuration's own defaults by name."""
        listed = fields(self.kind)
        made = {field.name: field.default_factory() for field in listed if field.default_factory is not MISSING}
        return made | {field.name: field.default for field in listed if field.default is not MISSING}

    def switches(self) -> set[str]:
        """Those that true or false may be given to."""
        return _SWITCHES | {field.name for field in fields(self.kind) if "bool" in str(field.type)}

    def known(self) -> set[str]:
        return {field.name for field in fields(self.kind)}


SFT = Arguments(SFTConfig, FIXED, HONOURED, REFUSED)

_GRPO_FIXED = {name: value for name, value in FIXED.items() if name not in ("dataset_kwargs", "max_length")} | {
    "reward_weights": None  # by `rewards`
}
_GRPO_HONOURED = (
    HONOURED - {"train_sampling_strategy", "neftune_noise_alpha", "include_num_input_tokens_seen"}
) | frozenset(
    """
    num_generations max_completion_length steps_per_generation num_iterations
    temperature top_p top_k min_p repetition_penalty
    beta epsilon epsilon_high delta loss_type scale_rewards importance_sampling_level multi_objective_aggregation
    mask_truncated_completions top_entropy_quantile disable_dropout shuffle_dataset
    log_completions num_completions_to_print ds3_gather_for_generation
    """.split()
)
_NO_EVALUATION = "nothing is evaluated during GRPO; compare models afterwards with swim grounding, bench-q or bench-d"
_NO_TOOLS = "a prompt is one question, without tools or environments"
_UNTRIED = "it has not been tried with prompts that have a video"
_GRPO_REFUSED = {
    **dict.fromkeys(NEED_EVALUATION | {"num_generations_eval"}, _NO_EVALUATION),
    "max_tool_calling_iterations": _NO_TOOLS,
    "chat_template_kwargs": _OUR_DATA,
    "generation_batch_size": "use steps_per_generation",
    "train_sampling_strategy": "every epoch is shuffled; use shuffle_dataset: false to keep the order",
    "log_completions_hub_repo": _EXPORT,
}


def _grpo_refused() -> dict[str, str]:
    """Of what is neither honoured nor fixed: why."""
    given = {**{name: why for name, why in REFUSED.items() if why is not _OUR_LOSS}, **_GRPO_REFUSED}
    refused = {}
    for field in fields(GRPOConfig):
        if field.name in _GRPO_HONOURED or field.name in _GRPO_FIXED or field.name in ALIASES:
            continue
        vllm = "vllm" in field.name
        fallback = (
            "TRL's client of vLLM takes pictures and no videos; completions come from generate" if vllm else _UNTRIED
        )
        refused[field.name] = given.get(field.name, fallback)
    return refused


GRPO = Arguments(GRPOConfig, _GRPO_FIXED, _GRPO_HONOURED, _grpo_refused())


def rename(flat: dict[str, Any]) -> dict[str, Any]:
    """The keys of one source with old names replaced by current ones, and values as they were meant.

    Raises ValueError if both names of an argument are given with different values.
    """
    earlier = ALIASES | RENAMED
    renamed = {key: value for key, value in flat.items() if key not in earlier}
    for old, new in earlier.items():
        if old not in flat:
            continue
        if new in flat and flat[new] != flat[old]:
            raise ValueError(
                f"{old}: {flat[old]!r} contradicts {new}: {flat[new]!r}; {old} is the old name of {new}, remove it"
            )
        renamed[new] = flat[old]
    # YAML reads no as false, and the trainer's strategies have the value "no".
    return {key: "no" if key.endswith("_strategy") and value is False else value for key, value in renamed.items()}


def check_arguments(arguments: dict[str, Any], evaluates: bool, table: Arguments = SFT) -> str | None:
    """What is wrong with these arguments, or None.

    evaluates: whether anything is evaluated during training.
    """
    defaults = table.defaults()
    for name, value in arguments.items():
        if name in table.fixed:
            return f"{name} is set by the trainer; remove the key"
        if name in table.refused and value != defaults[name] and value not in _ALSO_TRUE.get(name, ()):
            return f"{name}: {value!r} would change nothing here: {table.refused[name]}"
        if name in NEED_EVALUATION and not evaluates and value != defaults[name]:
            return f"{name}: nothing is evaluated during training; name an annotated file with eval_grounding"
        if name in _NEED_WORKERS and not arguments.get("dataloader_num_workers") and value != defaults[name]:
            return f"{name}: no worker reads data; set dataloader_num_workers to 1 or more"
        if isinstance(value, bool) and name not in table.switches():
            return f"{name}: {NO_VALUE}, found {value!r}"
        problem = _not_a_number_for(name, value)
        if problem is not None:
            return f"{name}: {problem}, found {value!r}"
        beginnings, why = _REFUSED_VALUES.get(name, ((), ""))
        if _begins(value, beginnings):
            return f"{name}: {value} is not available: {why}"
    return None


def _not_a_number_for(name: str, value: Any) -> str | None:
    """What is wrong with the number of an argument that has bounds, or None."""
    if name in _NUMBER_OF:
        try:
            _NUMBER_OF[name].validate_python(value)
        except ValidationError as error:
            return error.errors()[-1]["msg"]
    return None


def _begins(value: Any, beginnings: Iterable[str]) -> bool:
    return isinstance(value, str) and value.lower().startswith(tuple(beginnings))
