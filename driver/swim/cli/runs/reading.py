"""How a video is shown to the model: options shared by every command that asks one."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from swim.data.settings import READING_FILE, DataSettings, describe_reading, find_reading
from swim.errors import DataError
from swim.model_name import check_model_name
from swim.processes import processes
from swim.video.readers import check_reader


def data_settings(options: argparse.Namespace) -> DataSettings:
    """How videos are read: as given, else as the model was trained, else the paper's; says which in a line on stderr.

    Several models see the same: what the first of them was trained with that says so. Annotated frames are not told to
    the sampler: that would leak the answer. Raises NoModel, NoReader, and DataError naming a model's READING_FILE when it is
    malformed, and where min_pixels and max_pixels contradict each other.
    """
    models = [options.model] if isinstance(options.model, str) else options.model
    # a server's model has a name of its own there, which is nobody's on a hub
    local = [model for model in models if getattr(options, "backend", "local") == "local" or Path(model).is_dir()]
    for model in local:
        check_model_name(model)
    found = next((reading for model in local if (reading := find_reading(model)) is not None), None)
    names = ("max_frames", "fps", "min_pixels", "max_pixels", "total_pixels", "system_prompt", "video_reader")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    given |= {"released_timing": True} if options.released_timing else {}
    settings = _with_given(DataSettings() if found is None else found[0], dict(given))
    if settings.budget.contradiction is not None:
        raise DataError(settings.budget.contradiction, _origin(models, found, list(given)))
    check_reader(settings.video_reader)
    _say(f"videos are read with {describe_reading(settings)}; {_origin(models, found, list(given))}")
    return settings


def _with_given(base: DataSettings, given: dict) -> DataSettings:
    system_prompt = given.pop("system_prompt", base.system_prompt)
    released_timing = given.pop("released_timing", base.released_timing)
    video_reader = given.pop("video_reader", base.video_reader)
    return replace(
        base,
        budget=replace(base.budget, **given),
        system_prompt=system_prompt,
        released_timing=released_timing,
        video_reader=video_reader,
        keep_annotated_frames=False,
        cache_gb=0.0,
    )


def _origin(models: list[str], found: tuple[DataSettings, str] | None, given: list[str]) -> str:
    """Where the settings came from, in a few words."""
    options = ", ".join(f"--{name}" for name in given)
    by_hand = f", but {options} as given" if options else ""
    if found is not None:
        return f"as {found[1]} says{by_hand}"
    return f"{' and '.join(models)} has no {READING_FILE}, so the paper's settings hold{by_hand}: give those it was trained with"


def _say(line: str):
    if processes().is_main_process:
        print(line, file=sys.stderr)
