"""The processes of one launch."""

import os

import torch
from accelerate import PartialState


def processes() -> PartialState:
    """This process among those of its launch, joined with them on first use.

    Left to itself, Accelerate takes each of several CPU processes for the only one: all of them would do all the work.
    """
    return PartialState(cpu="LOCAL_RANK" in os.environ and not torch.cuda.is_available())
