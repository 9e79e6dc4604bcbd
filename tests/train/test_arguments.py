"""No argument of SFTConfig is accepted and does nothing."""

import dataclasses
from pathlib import Path

import pytest
import torch
from trl import SFTConfig

from swim.train import arguments
from swim.train.config import ConfigError, TrainConfig, load_config
from swim.train.run import train

from .conftest import log_entries, weights


def test_every_argument_of_this_release_is_classified_once():
    groups = [
        set(arguments.HONOURED),
        set(arguments.NEED_EVALUATION),
        set(arguments.REFUSED),
        set(arguments.FIXED),
        set(arguments.ALIASES),
    ]
    counts = {name: sum(name in group for group in groups) for name in set().union(*groups)}
    fields = {field.name for field in dataclasses.fields(SFTConfig)}
    assert {name for name in fields if counts.get(name, 0) != 1} == set()
    assert set(counts) - fields == set()


def test_every_argument_of_grpo_is_classified_once_too():
    table = arguments.GRPO
    groups = [set(table.honoured), set(table.refused), set(table.fixed), set(arguments.ALIASES)]
    counts = {name: sum(name in group for group in groups) for name in set().union(*groups)}
    assert {name for name in table.known() if counts.get(name, 0) != 1} == set()
    assert set(counts) - table.known() == set()


def refusal(configure, **given) -> str:
    with pytest.raises(ConfigError) as error:
        configure(**given)
    return str(error.value)


@pytest.mark.parametrize("name", arguments.OTHER_NAMES)
def test_what_other_trainers_call_it_is_answered_with_the_name_here(configure, name):
    message = refusal(configure, **{name: 1})
    assert message == f"command line: unknown key {name!r}; {arguments.OTHER_NAMES[name]}"


def test_hints_name_keys_that_exist_and_are_no_keys_themselves():
    known = set(TrainConfig.model_fields) | arguments.SFT.known()
    assert not known & set(arguments.OTHER_NAMES)
    named = {
        hint.split()[1].rstrip(",").split(".")[0]
        for hint in arguments.OTHER_NAMES.values()
        if hint.startswith("write ")
    }
    assert {name.rstrip(":") for name in named} <= known


# What a user may write who expects TRL's trainer.
TRIED = {
    "label_smoothing_factor": 0.3,
    "loss_type": "dft",
    "completion_only_loss": False,
    "pad_to_multiple_of": 8,
    "pad_token": "<|endoftext|>",
    "packing": True,
    "padding_free": True,
    "use_liger_kernel": True,
    "fp16": True,
    "save_only_model": True,
    "push_to_hub": True,
    "model_init_kwargs": "{dtype: bfloat16}",
    "do_train": True,
    "chat_template_path": "x.jinja",
}


@pytest.mark.parametrize("name", TRIED)
def test_what_would_do_nothing_is_refused_in_one_line(configure, name):
    message = refusal(configure, **{name: TRIED[name]})
    assert message.startswith(f"--{name}: ") and "\n" not in message and arguments.REFUSED[name] in message


@pytest.mark.parametrize("name", sorted(set(arguments.REFUSED) | arguments.NEED_EVALUATION))
def test_a_default_that_is_written_out_is_accepted(tmp_path, name):
    path = tmp_path / "config.yaml"
    default = arguments.SFT.defaults()[name]
    path.write_text(f"output_dir: o\n{name}: {'null' if default is None else repr(default)}\n")
    assert load_config(path).arguments == {name: default}


def test_saying_that_answers_alone_are_learnt_is_accepted(configure):
    configure(completion_only_loss=True, assistant_only_loss=True)


@pytest.mark.parametrize("given", [{"train_sampling_strategy": "group_by_length"}, {"optim": "galore_adamw"}])
def test_values_that_end_in_tracebacks_elsewhere_are_refused(configure, given):
    assert "is not available" in refusal(configure, **given)


# Of each: what it was taken for, and trained wrongly with or ended far from the option.
WRONG_NUMBERS = {
    "learning_rate": (-1e-4, ".nan", ".inf", "fast"),
    "max_grad_norm": (-1,),
    "weight_decay": (-0.1,),
    "adam_beta1": (1, -0.1),
    "per_device_train_batch_size": (0, -2, 2.5),
    "gradient_accumulation_steps": (0,),
    "max_steps": (0, -7),
    "num_train_epochs": (0, -1),
    "logging_steps": (0, -1),
    "save_steps": (0, -1),
    "seed": (-1,),
    "dataloader_num_workers": (-1,),
}


@pytest.mark.parametrize("name", WRONG_NUMBERS)
def test_numbers_that_mean_nothing_are_refused_with_their_bounds(configure, name):
    for value in WRONG_NUMBERS[name]:
        assert refusal(configure, **{name: value}).startswith(f"--{name}: Input should be "), value


def test_numbers_that_mean_something_are_taken(configure):
    for given in ({"max_steps": -1}, {"save_steps": 0.5}, {"learning_rate": "1e-4"}, {"warmup_steps": 0.1}):
        configure(**given).trainer_arguments()


@pytest.mark.parametrize("table", [arguments.SFT, arguments.GRPO], ids=["sft", "grpo"])
def test_every_number_of_this_release_has_bounds_that_hold_its_default(table):
    numbers = {name for name, value in table.defaults().items() if type(value) in (int, float)}
    unbounded = (numbers & table.honoured) - set(arguments._NUMBER_OF)
    assert unbounded <= {"num_generations"}  # TRL checks it, with the batch's size
    for name in set(arguments._NUMBER_OF) & table.known():
        assert arguments.check_arguments({name: table.defaults()[name]}, True, table) is None, name


@pytest.mark.parametrize(
    "name", ["learning_rate", "max_steps", "deepspeed", "optim", "max_frames", "lora.r", "demo.seed"]
)
def test_an_option_without_its_value_is_no_number(configure, name):
    """`--learning_rate $RATE` of a variable that is not set trained with a rate of 1."""
    path = Path(__file__).resolve().parents[2] / "run_scripts/configs/sft_demo.yaml"
    with pytest.raises(ConfigError, match=f"^--{name}: expected a value, not a switch, found True$"):
        load_config(path, [f"--{name}", "--disable_tqdm", "true"])
    assert load_config(path, ["--report", "--bf16"]).report


@pytest.mark.parametrize("name", ["eval_strategy", "load_best_model_at_end"])
def test_evaluation_without_anything_to_evaluate_is_refused(configure, name):
    given = {"eval_strategy": "steps", "load_best_model_at_end": True}[name]
    assert "name an annotated file with eval_grounding" in refusal(configure, **{name: given})


def test_workers_without_any_are_refused(configure):
    assert "set dataloader_num_workers to 1 or more" in refusal(configure, dataloader_persistent_workers=True)
    configure(dataloader_persistent_workers=True, dataloader_num_workers=1)


def test_the_earlier_name_of_checkpointing_is_the_present_one(configure, tmp_path):
    """sft_demo.yaml sets the present name: on the command line the earlier one wins, as any override does."""
    config = configure(gradient_checkpointing=True)
    assert config.arguments["activation_checkpointing"] is True and "gradient_checkpointing" not in config.arguments
    assert config.trainer_arguments().activation_checkpointing
    path = tmp_path / "both.yaml"
    path.write_text("output_dir: o\ngradient_checkpointing: true\nactivation_checkpointing: false\n")
    with pytest.raises(ConfigError, match="gradient_checkpointing: True contradicts activation_checkpointing: False"):
        load_config(path)


@pytest.mark.parametrize("given", ["no", "off", "false", "'no'"])
def test_no_is_a_strategy_although_yaml_reads_it_as_false(configure, tmp_path, given):
    assert configure(save_strategy=given).trainer_arguments().save_strategy == "no"
    path = tmp_path / "config.yaml"
    path.write_text(f"output_dir: o\nsave_strategy: {given}\nlogging_strategy: {given}\n")
    config = load_config(path)
    assert config.arguments == {"save_strategy": "no", "logging_strategy": "no"}
    assert load_config(path, ["--save_strategy", given]).arguments == config.arguments


CHANGES = {
    "neftune_noise_alpha": 50.0,
    "train_sampling_strategy": "sequential",
    "data_seed": 7,
    "weight_decay": 10.0,
    "max_grad_norm": 0.001,
    "optim": "sgd",
    "lr_scheduler_kwargs": "{num_cycles: 3.0}",
}


@pytest.fixture(scope="module")
def plain_weights():
    return {}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_honoured_changes_the_run(configure, plain_weights, name):
    if not plain_weights:
        plain = configure("plain", max_steps=3)
        train(plain)
        plain_weights.update(weights(plain.output_dir))
    config = configure("changed", max_steps=3, **{name: CHANGES[name]})
    train(config)
    assert len(log_entries(Path(config.output_dir), "text_loss")) == 3
    changed = weights(config.output_dir)
    assert any(not torch.equal(changed[key], plain_weights[key]) for key in changed)
