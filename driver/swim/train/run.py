"""One training run, read from top to bottom."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, gather_object
from datasets import Dataset
from rich.console import Console
from torch import distributed
from transformers import TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_utils import TrainOutput, set_seed

from swim.data.collator import SwimCollator
from swim.data.lengths import read_lengths
from swim.data.mixture import Mixture, check_sources, load_annotated, load_mixture
from swim.data.settings import write_reading
from swim.lock import FolderInUse, hold
from swim.model_name import NoModel, check_model_name
from swim.models.load import write_supervision
from swim.models.supervision import AttentionSupervisionConfig
from swim.train.card import write_card
from swim.train.checkpoints import Checkpoints, problem, processes_of
from swim.train.config import ConfigError, TrainConfig, trackers
from swim.train.estimate import Estimate, check_room, estimate, numbers_of, parallelism_of, shared_memory_warnings
from swim.train.faults import report_faults, saving
from swim.train.finishing import FinishCheckpoints
from swim.train.fusing import fuse_elementwise
from swim.train.grpo import SwimGRPOTrainer
from swim.train.grpo_config import GRPOTrainConfig
from swim.train.model import attention_implementation, load_model, lora_config
from swim.train.parameters import parts_table
from swim.train.report import REPORT_FILE, write_report
from swim.train.run_folder import RunFolder, read_state
from swim.train.signals import StopOnSignal, Stopped
from swim.train.skipping import CountingCollator, SkippedRecords
from swim.train.trainer import LogShortRuns, SaveSettings, SwimTrainer
from swim.train.unpickling import listed_classes_only
from swim.train.watch import TensorBoard, keep_wandb_run
from swim.train.worker_notes import WorkerNotes
from swim.video.readers import NoReader, check_reader

console = Console(soft_wrap=True)

Trainer = SwimTrainer | SwimGRPOTrainer


def train(config: TrainConfig) -> dict:
    """Trains as `config` says and leaves the checkpoint in its output_dir. Returns what `finished.json` holds.

    A finished run is left as it is. An unfinished one with the same configuration resumes from its last complete
    checkpoint. `config` names its model and its data. Raises ConfigError for a folder that belongs to another
    configuration or other data, FolderInUse for one that another process writes into, DataError for bad data,
    TrainingFault for what ends a run, Stopped after a signal.
    """
    folder = RunFolder(config.output_dir)
    changed = folder.differences(config)
    finished = folder.finished()
    if finished is not None and not changed:
        console.print(f"{folder.path} holds this run, finished after {finished['steps']} steps: nothing to do")
        return finished

    _check_inputs(config)
    _join_processes(config)
    arguments = config.trainer_arguments()
    _join_fsdp(arguments)
    with _alone_in(folder.path):
        return _run(config, arguments, folder)


def _run(config: TrainConfig, arguments: TrainingArguments, folder: RunFolder) -> dict:
    """The run itself, in a folder that is its own."""
    state = PartialState()
    mixture = load_mixture(config.mixture, arguments.seed, config.skip_list, config.mask_share)
    changed = folder.differences(config, mixture)
    resume = _checkpoint(config, arguments, state)
    if config.cpu_threads is not None:
        torch.set_num_threads(config.cpu_threads)
    set_seed(arguments.seed)
    notes, stop = WorkerNotes(arguments.dataloader_num_workers), StopOnSignal()
    skipped = SkippedRecords(folder.path, config.max_bad_fraction, mixture.hashes)
    trainer = _make_trainer(config, arguments, mixture, skipped, notes, stop)
    needs = _needs(config, trainer)
    trainer.checkpoint_bytes = needs.checkpoint
    if state.is_main_process:
        folder.begin(config, mixture)
        _announce(config, trainer, mixture, resume)
        if changed:
            console.print(f"continuing although these differ: {', '.join(changed)}")
        for line in _room(config, arguments, needs):
            console.print(line)
        step = 0 if resume is None else read_state(resume).global_step
        skipped.forget_after(step)
        if "wandb" in trackers(arguments):
            keep_wandb_run(folder.path)
    state.wait_for_everyone()

    finishing = FinishCheckpoints(Checkpoints(folder.path), config.save_total_limit, needs.checkpoint)
    trainer.add_callback(finishing)
    with report_faults(notes, config.dataloader_timeout_s):
        with finishing, stop.listening(), trainer.clock.running(), _unpickling(resume, arguments):
            result = trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        if stop.agreed and trainer.state.global_step < trainer.state.max_steps:
            raise _stopped(stop, trainer, folder, state)
        with saving(folder.path, "the final weights", needs.checkpoint):
            trainer.save_model()
            trainer.save_state()
    summary = _summary(trainer, result)
    if state.is_main_process:
        if config.lora is not None:
            write_supervision(folder.path, _supervision(trainer))
        write_report(folder.path, summary)
        folder.finish(summary)
        write_card(folder.path, folder.path)
        for reason, count, path in skipped.by_reason():
            console.print(f"skipped {count} record(s): {reason}; listed in {path}")
        console.print(f"finished after {summary['steps']} steps: {folder.path}, see {REPORT_FILE} there")
    state.wait_for_everyone()
    return summary


def _check_inputs(config: TrainConfig):
    """What can be told at once, before processes meet and models load. Raises DataError, ConfigError."""
    check_sources(config.mixture)
    try:
        check_model_name(config.model)
    except NoModel as error:
        raise ConfigError(f"model_name_or_path: {error}") from None
    attention_implementation(config)
    try:
        check_reader(config.video_reader)
    except NoReader as error:
        raise ConfigError(f"video_reader: {error}") from None
    try:
        AttentionSupervisionConfig.from_dict(config.attention_supervision)
    except ValueError as error:
        raise ConfigError(f"attention_supervision: {error}") from None


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """The first process claims the folder for all of them; when it cannot, all raise FolderInUse."""
    lease, problem = None, None
    if PartialState().is_main_process:
        try:
            lease = hold(folder)
        except FolderInUse as error:
            problem = str(error)
    problems = [found for found in gather_object([problem]) if found is not None]
    if problems:
        raise FolderInUse(problems[0])
    try:
        yield
    finally:
        if lease is not None:
            lease.release()


def _unpickling(resume: Path | None, arguments: TrainingArguments):
    """Around a run that resumes: its checkpoint may have come from anywhere."""
    return nullcontext() if resume is None else listed_classes_only(resume, arguments.deepspeed is not None)


def _make_trainer(
    config: TrainConfig,
    arguments: TrainingArguments,
    mixture: Mixture,
    skipped: SkippedRecords,
    notes: WorkerNotes,
    stop: StopOnSignal,
) -> Trainer:
    model, processor = load_model(config, arguments.deepspeed is not None and bool(arguments.bf16))
    if config.fuse_elementwise:
        fuse_elementwise(model)
    supervision = model.config.attention_supervision
    shared = {
        "model": model,
        "args": arguments,
        "train_dataset": mixture.dataset,
        "processing_class": processor,
        "peft_config": lora_config(config.lora, model),
        "learning_rates": config.part_rates,
        "data_timeout_s": config.dataloader_timeout_s,
    }
    trainer: Trainer
    if isinstance(config, GRPOTrainConfig):
        trainer = SwimGRPOTrainer(
            **shared,
            reward_funcs=config.reward_functions(),
            collator=SwimCollator(processor, model.config, config.data_settings),
            mask_loss_weight=supervision["mask_loss_weight"],
            skipped=skipped if config.on_bad_record == "skip" else None,
        )
    else:
        collator = SwimCollator(processor, model.config, config.data_settings, as_bytes=True)
        trainer = SwimTrainer(
            **shared,
            data_collator=CountingCollator(collator, config.on_bad_record == "skip", notes),
            eval_dataset=_evaluated(config),
            skipped=skipped,
            lengths=None if config.lengths is None else read_lengths(config.lengths, mixture),
        )
    trainer.add_callback(LogShortRuns())
    trainer.add_callback(SaveSettings(lambda path: write_reading(path, config.data_settings)))
    if config.lora is not None:  # an adapter's folder holds no model config
        trainer.add_callback(SaveSettings(lambda path: write_supervision(path, supervision)))
    if "tensorboard" in trackers(arguments):
        trainer.remove_callback(TensorBoardCallback)
        trainer.add_callback(TensorBoard(Path(config.output_dir) / "tensorboard"))
    trainer.add_callback(stop)
    return trainer


def _evaluated(config: TrainConfig) -> Dataset | None:
    if config.eval_grounding is None:
        return None
    return load_annotated(config.eval_grounding, config.eval_root, config.eval_untrusted)


def _supervision(trainer: Trainer) -> dict:
    return trainer.accelerator.unwrap_model(trainer.model).config.attention_supervision


def _summary(trainer: Trainer, result: TrainOutput) -> dict:
    """What `finished.json` holds: steps, the last log line, what Trainer says of the whole."""
    last = next((entry for entry in reversed(trainer.state.log_history) if trainer.logged[0] in entry), {})
    return {
        "steps": trainer.state.global_step,
        **{name: last[name] for name in trainer.logged if name in last},
        **{name: result.metrics[name] for name in ("train_loss", "train_runtime") if name in result.metrics},
    }


def _needs(config: TrainConfig, trainer: Trainer) -> Estimate:
    model = trainer.accelerator.unwrap_model(trainer.model)
    return estimate(numbers_of(model), parallelism_of(trainer.accelerator), adapter=config.lora is not None)


def _room(config: TrainConfig, arguments: TrainingArguments, needs: Estimate) -> list[str]:
    """Lines about memory and disk of this machine. Raises ConfigError when the disk cannot hold a checkpoint."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    reading = (
        arguments.per_device_train_batch_size,
        arguments.dataloader_num_workers,
        arguments.dataloader_prefetch_factor,
    )
    return [
        *check_room(needs, Path(config.output_dir), config.save_total_limit, processes),
        *shared_memory_warnings(config.data_settings.budget, *reading, processes),
    ]


def _stopped(stop: StopOnSignal, trainer: Trainer, folder: RunFolder, state: PartialState) -> Stopped:
    state.wait_for_everyone()  # until the checkpoint is complete
    saved = Checkpoints(folder.path).last()
    name = signal.Signals(stop.agreed).name
    return Stopped(
        stop.agreed,
        f"{name}: stopped after step {trainer.state.global_step} of {trainer.state.max_steps}, saved as {saved}; "
        "rerun the same command to resume from there",
    )


def _checkpoint(config: TrainConfig, arguments: TrainingArguments, state: PartialState) -> Path | None:
    """The checkpoint to resume from: the one that is named, else the folder's last complete one."""
    checkpoints = Checkpoints(config.output_dir)
    if state.is_main_process:
        for line in checkpoints.set_aside():
            console.print(line)
    state.wait_for_everyone()
    named = arguments.resume_from_checkpoint
    found = checkpoints.last()
    seen = gather_object([None if found is None else found.name])
    if len(set(seen)) > 1:
        raise ConfigError(
            f"{config.output_dir}: processes see different checkpoints there ({', '.join(map(str, seen))}); it has to be a "
            "folder that all nodes share"
        )
    if named not in (None, "True", "true", True):
        found = Path(named)
        reason = problem(found)
        if reason is not None:
            raise ConfigError(f"resume_from_checkpoint: {named} is no complete checkpoint ({reason})")
    elif named is not None and found is None:
        raise ConfigError(
            f"resume_from_checkpoint: {config.output_dir} holds no complete checkpoint; leave the key out"
        )
    if found is not None and processes_of(found) != state.num_processes and not config.allow_config_change:
        raise ConfigError(
            f"{found} was saved by {processes_of(found)} process(es), this run has {state.num_processes}: the order of "
            "the records would change. Start as many, or resume anyway with --allow_config_change true"
        )
    return found


def _join_processes(config: TrainConfig):
    """Starts what Trainer leaves out.

    Gloo with the time limit, which Trainer gives to GPUs alone. DeepSpeed's communication, which counts one process until
    it runs; a single process needs no launcher.
    """
    limit = timedelta(seconds=config.process_timeout_s)
    if config.arguments.get("deepspeed") is None:
        if "RANK" in os.environ and not torch.cuda.is_available() and not distributed.is_initialized():
            distributed.init_process_group("gloo", timeout=limit)
        return
    import deepspeed  # slow, and compiled on first use: only for those who ask for it

    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(backend, verbose=False, timeout=limit)


def _join_fsdp(arguments: TrainingArguments):
    """Lets Accelerate shard on CPUs too: it passes over FSDP in silence there, and would run DDP."""
    state = PartialState()
    if not arguments.fsdp:
        return
    if state.num_processes == 1:
        raise ConfigError("fsdp needs several processes; start them with NPROC=2 or more")
    if state.distributed_type == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def _announce(config: TrainConfig, trainer: Trainer, mixture: Mixture, resume: Path | None):
    """What runs, in a few lines, before step 1."""
    console.print(mixture.describe(), markup=False, highlight=False)
    model = trainer.accelerator.unwrap_model(trainer.model)
    console.print(parts_table(model, trainer.args.learning_rate, config.part_rates))
    supervision, sharing = _supervision(trainer), parallelism_of(trainer.accelerator)
    console.print(
        f"{len(mixture.dataset):,} records, {sharing.processes} process(es), {sharing.name}, "
        f"attention: {attention_implementation(config)}"
    )
    loss = f"{supervision['text_loss_weight']} * text_loss"
    if isinstance(config, GRPOTrainConfig) and isinstance(trainer, SwimGRPOTrainer):
        rewards = " + ".join(f"{weight:g} * {name}" for name, weight in config.rewards.items())
        console.print(f"{trainer.args.num_generations} completions of each prompt, reward = {rewards}")
        loss = "GRPO"
    console.print(
        f"supervised layers {supervision['layers']}, preset {supervision['preset']}, mask loss {supervision['loss']}, "
        f"loss = {loss} + {supervision['mask_loss_weight']} * mask_loss"
    )
    if resume is not None:
        console.print(f"resuming from {resume}")
