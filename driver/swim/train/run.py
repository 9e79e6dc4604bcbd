"""One training run, read from top to bottom."""

import json
import os
import socket
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from rich.console import Console
from transformers.trainer_utils import set_seed

from swim.data.collator import SwimCollator
from swim.data.mixture import load_annotated, load_mixture
from swim.train.config import ConfigError, TrainConfig
from swim.train.model import attention_implementation, load_model, lora_config, write_supervision
from swim.train.parts import parts_table
from swim.train.run_folder import RunFolder
from swim.train.skipping import CountingCollator, SkippedRecords
from swim.train.trainer import LOGGED, SaveSupervision, SwimTrainer

console = Console(soft_wrap=True)


def train(config: TrainConfig) -> dict:
    """Trains as `config` says and leaves the checkpoint in its output_dir. Returns what `finished.json` holds.

    A finished run is left as it is. An unfinished one with the same configuration resumes from its last complete
    checkpoint. `config` names its model and its data. Raises ConfigError for a folder that belongs to another
    configuration, DataError for bad data.
    """
    folder = RunFolder(config.output_dir)
    folder.check_config(config)
    finished = folder.finished()
    if finished is not None:
        console.print(f"{folder.path} holds this run, finished after {finished['steps']} steps: nothing to do")
        return finished

    _join_deepspeed(config)
    arguments = config.trainer_arguments()
    _join_fsdp(arguments)
    mixture = load_mixture(config.data_config, arguments.seed, config.skip_list)
    resume = _checkpoint(config, folder, arguments)
    state = PartialState()
    if config.cpu_threads is not None:
        torch.set_num_threads(config.cpu_threads)
    set_seed(arguments.seed)
    model, processor = load_model(config, arguments.deepspeed is not None and arguments.bf16)
    supervision = model.config.attention_supervision
    skipped = SkippedRecords(folder.path, config.max_bad_fraction, mixture.hashes)
    collator = SwimCollator(processor, model.config, config.data_settings)
    trainer = SwimTrainer(
        model=model,
        args=arguments,
        data_collator=CountingCollator(collator, config.on_bad_record == "skip"),
        train_dataset=mixture.dataset,
        eval_dataset=None if config.eval_grounding is None else load_annotated(config.eval_grounding, config.eval_root),
        processing_class=processor,
        peft_config=lora_config(config.lora),
        skipped=skipped,
        learning_rates=config.learning_rates,
    )
    if config.lora is not None:
        trainer.add_callback(SaveSupervision(lambda path: write_supervision(path, supervision)))
    if state.is_main_process:
        folder.write_config(config)
        folder.write_mixture(mixture)
        console.print(mixture.table())
        _announce(config, trainer, len(mixture.dataset), resume)
    _count_on(trainer, skipped, resume, state)

    result = trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    trainer.save_model()
    trainer.save_state()
    last = next((entry for entry in reversed(trainer.state.log_history) if "text_loss" in entry), {})
    summary = {
        "steps": trainer.state.global_step,
        **{name: last[name] for name in LOGGED if name in last},
        **{name: result.metrics[name] for name in ("train_loss", "train_runtime") if name in result.metrics},
    }
    if state.is_main_process:
        if config.lora is not None:
            write_supervision(folder.path, supervision)
        folder.finish(summary)
        for reason, count in skipped.by_reason().most_common():
            console.print(f"skipped {count} record(s): {reason}; listed in {skipped.path}")
        console.print(f"finished after {summary['steps']} steps: {folder.path}")
    state.wait_for_everyone()
    return summary


def _checkpoint(config: TrainConfig, folder: RunFolder, arguments) -> Path | None:
    """The checkpoint to go on from: the one that is named, else the folder's last complete one."""
    named = arguments.resume_from_checkpoint
    last = folder.last_checkpoint()
    if named in (None, "True", "true", True):
        if named is not None and last is None:
            raise ConfigError(f"resume_from_checkpoint: {folder.path} holds no complete checkpoint; leave the key out")
        return last
    if not (Path(named) / "trainer_state.json").exists():
        raise ConfigError(f"resume_from_checkpoint: {named} is no complete checkpoint (it has no trainer_state.json)")
    return Path(named)


def _count_on(trainer: SwimTrainer, skipped: SkippedRecords, resume: Path | None, state: PartialState):
    """Sets the counts of skipped records to what they were at the checkpoint that the run goes on from."""
    steps = 0 if resume is None else json.loads((resume / "trainer_state.json").read_text())["global_step"]
    if state.is_main_process:
        skipped.forget_after(steps)
    state.wait_for_everyone()
    arguments = trainer.args
    per_step = arguments.train_batch_size * arguments.gradient_accumulation_steps * state.num_processes
    trainer.count_from(steps * per_step, len(skipped.read()))


def _join_deepspeed(config: TrainConfig):
    """Starts DeepSpeed's communication, which counts one process until it runs; a single process needs no launcher."""
    if config.arguments.get("deepspeed") is None:
        return
    import deepspeed  # slow, and compiled on first use: only for those who ask for it

    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo", verbose=False)


def _join_fsdp(arguments):
    """Lets Accelerate shard on CPUs too: it passes over FSDP in silence there, and would run DDP."""
    state = PartialState()
    if not arguments.fsdp:
        return
    if state.num_processes == 1:
        raise ConfigError("fsdp needs several processes; start them with NPROC=2 or more")
    if state.distributed_type == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def _sharing(accelerator) -> str:
    """How processes share the model, such as "ZeRO-3" or "FSDP2"."""
    state = accelerator.state
    if state.deepspeed_plugin is not None:
        return f"ZeRO-{state.deepspeed_plugin.zero_stage}"
    if accelerator.is_fsdp2:
        return "FSDP2"
    return "DDP" if accelerator.num_processes > 1 else "not shared"


def _announce(config: TrainConfig, trainer: SwimTrainer, records: int, resume: Path | None):
    """What runs, in a few lines, before step 1."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    console.print(parts_table(model, trainer.args.learning_rate, config.learning_rates))
    supervision = model.config.attention_supervision
    console.print(
        f"{records:,} records, {trainer.accelerator.num_processes} process(es), {_sharing(trainer.accelerator)}, "
        f"attention: {attention_implementation(config)}"
    )
    console.print(
        f"supervised layers {supervision['layers']}, preset {supervision['preset']}, "
        f"loss = {supervision['text_loss_weight']} * text_loss + {supervision['mask_loss_weight']} * mask_loss"
    )
    if resume is not None:
        console.print(f"resuming from {resume}")
