"""The configuration of a GRPO run: that of any training run, with rewards."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator
from trl import GRPOConfig

from swim.llm import Asker, Endpoint
from swim.options import Options
from swim.reply_cache import ReplyCache
from swim.train.arguments import GRPO, Arguments
from swim.train.config import ConfigError, TrainConfig
from swim.train.rewards import NAMES, Reward, make_reward


class JudgeOptions(Options):
    """Who grades completions for the reward `judge`."""

    model: str = Field(description="name of the judge at its service")
    base_url: str | None = Field(None, description="of the API, such as http://localhost:8000/v1; null is OpenAI's")
    concurrency: int = Field(8, ge=1, description="requests at a time")
    timeout_s: float = Field(120.0, gt=0, description="of one request")
    max_requests: int | None = Field(None, ge=1, description="of one run; null for any number")
    max_usd: float | None = Field(None, gt=0, description="of one run, where the model's prices are known")


class GRPOTrainConfig(TrainConfig):
    """Keys of a training run, with the rewards of its completions. Every other key is an argument of TRL's GRPOConfig."""

    table: ClassVar[Arguments] = GRPO
    rewards: dict[str, float] = Field(
        {"answer": 1.0},
        description=f"rewards and their weights: {', '.join(NAMES)}, or package.module:function of TRL's signature; one of "
        "weight 0 is logged and does not count",
    )
    format_pattern: str | None = Field(
        None, description="regular expression that the reward format wants the whole completion to match"
    )
    judge: JudgeOptions | None = Field(
        None,
        description="of the reward judge: {model, base_url, concurrency, timeout_s, max_requests, max_usd}; its replies are "
        "cached in the run's folder",
    )

    @model_validator(mode="after")
    def _fits_grpo(self):
        if self.train != ["language_model"]:
            raise ValueError("train: a prompt's completions share what the vision tower made of it; leave train out")
        for key in ("eval_grounding", "lengths"):
            if getattr(self, key) is not None:
                raise ValueError(f"{key}: not used by GRPO; leave it out")
        if not self.rewards:
            raise ValueError("rewards: expected at least one")
        return self

    def trainer_arguments(self) -> GRPOConfig:
        """With the weights of the rewards. Raises ConfigError for values that the trainer refuses."""
        resolved = super().trainer_arguments()
        resolved.reward_weights = list(self.rewards.values())
        return resolved

    def reward_functions(self) -> list[Reward]:
        """In the order of `rewards`. Raises ConfigError for one that cannot be had."""
        replies = Path(self.output_dir) / "judge_replies.sqlite"
        try:
            asker = None if self.judge is None else Asker(Endpoint(**self.judge.model_dump()), ReplyCache(replies))
            return [make_reward(name, self.format_pattern, asker) for name in self.rewards]
        except ValueError as error:
            raise ConfigError(f"rewards: {error}") from None
