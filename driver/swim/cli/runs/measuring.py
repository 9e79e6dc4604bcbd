"""What an ablation measures of a model: held-out records, Bench-Q and Bench-D, the demo's or one's own."""

import hashlib
import json
import re
import statistics
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from swim.ablation.plan import Ablation, BenchFile, Yardstick, digest
from swim.cli.runs.comparison import held_out_of
from swim.cli.runs.demo_defaults import demo_benches, is_demo_data
from swim.cli.runs.held_out import HeldOut, evaluate
from swim.data.bench import parse_bench_d, parse_bench_q
from swim.data.settings import DataSettings
from swim.data.tags import strip_tags
from swim.demo.facts import Track
from swim.demo.inputs import make_demo_inputs
from swim.demo.judge import scores as judge_scores
from swim.eval import bench_d, bench_q
from swim.eval.items import read_items
from swim.files import read_file
from swim.infer.answering import Answering
from swim.infer.questions import ItemFile
from swim.llm import Endpoint
from swim.train.config import ConfigError, TrainConfig

BATCH_SIZE = 16


class Measuring:
    """The yardsticks of one ablation, for models of one training's kind.

    Raises ConfigError where a bench is asked for that neither the file names nor the demo has.
    """

    def __init__(self, ablation: Ablation, config: TrainConfig):
        self.ablation, self.config = ablation, config
        self.how = Answering(ablation.file.max_new_tokens, batch_size=BATCH_SIZE)

    @cached_property
    def identity(self) -> str:
        """A digest of what is asked and how it is scored: scores of another are those of another ablation."""
        file = self.ablation.file
        facts: dict[str, Any] = {"yardsticks": file.yardsticks, "max_new_tokens": file.max_new_tokens}
        sources = {"held_out": self.config.eval_grounding, "bench_q": None, "bench_d": None}
        for name, given in (("bench_q", file.bench_q), ("bench_d", file.bench_d)):
            if name in file.yardsticks:
                facts[name] = given and given.model_dump(include={"types", "judge"})
                sources[name] = str(self._file(name, given)[0])
        paths = [path for name, path in sources.items() if name in file.yardsticks and path is not None]
        facts["files"] = [hashlib.sha256(read_file(Path(path), "fix its path")).hexdigest() for path in paths]
        return digest(facts)

    def scores(self, model: str, folder: Path, words: dict[str, str]) -> dict[str, float]:
        """Of the yardsticks that the file lists. folder: of answers, where an interrupted evaluation resumes.

        words: exchanged in the questions of the benches; held-out records are not asked in other words.
        """
        found: dict[str, float] = {}
        for yardstick in self.ablation.file.yardsticks:
            if yardstick == "held_out" and not words:
                found |= self._held_out(model)
            elif yardstick == "bench_q":
                found["bench_q"] = self._bench_q(model, folder / "bench_q", words)
            elif yardstick == "bench_d":
                found["bench_d"] = self._bench_d(model, folder / "bench_d", words)
        return {name: round(value, 4) for name, value in found.items()}

    @cached_property
    def _records(self) -> HeldOut:
        return held_out_of(self.config)

    @property
    def _settings(self) -> DataSettings:
        return replace(self.config.data_settings, keep_annotated_frames=False, cache_gb=0.0)

    def _held_out(self, model: str) -> dict[str, float]:
        seen = evaluate(model, self._records, self.config.data_settings)
        found = {
            "pointing": seen.grounding.pointing,
            "pointing_swapped": seen.pointing_swapped,
            "inside": seen.grounding.inside,
            "answers": seen.accuracy,
            "perplexity": seen.grounding.perplexity,
        }
        return {name: value for name, value in found.items() if value is not None}

    def _file(self, yardstick: Yardstick, given: BenchFile | None) -> tuple[Path, Path | None]:
        """(items, folder of the videos)."""
        if given is not None and given.file is not None:
            videos = None if given.videos is None else self.ablation.place(given.videos)
            return self.ablation.place(given.file), videos
        if is_demo_data(self.config):
            benches = demo_benches(self.config.demo)
            return (benches.bench_q if yardstick == "bench_q" else benches.bench_d), None
        raise ConfigError(f"{self.ablation.path}: {yardstick}: name its file, {{file: FILE, videos: FOLDER}}")

    def _bench_q(self, model: str, folder: Path, words: dict[str, str]) -> float:
        """The share of items that are answered right."""
        given = self.ablation.file.bench_q
        file = read_items(*self._file("bench_q", given), parse_bench_q)
        if given is not None and given.types is not None:
            kept = {key: item for key, item in file.items.items() if item.type in given.types}
            if not kept:
                known = sorted({item.type for item in file.items.values()})
                raise ConfigError(f"{self.ablation.path}: bench_q.types: expected some of {known}, found {given.types}")
            file = replace(file, items=kept)
        models = {folder: model}
        [report] = bench_q.evaluate(self.how, models, self._settings, in_other_words(file, words)).values()
        return report["micro"] / 100

    def _bench_d(self, model: str, folder: Path, words: dict[str, str]) -> float:
        """Mean of the four dimensions, 0 to 5."""
        given = self.ablation.file.bench_d
        file = read_items(*self._file("bench_d", given), parse_bench_d)
        cases = bench_d.describe(self.how, {folder: model}, self._settings, in_other_words(file, words))
        if given is not None and given.judge is not None:
            endpoint = Endpoint(**given.judge.model_dump())
            [report] = bench_d.grade(cases, file, endpoint, folder / "judge_replies.sqlite").values()
            return report["mean"]
        if not is_demo_data(self.config):
            raise ConfigError(f"{self.ablation.path}: bench_d: name who grades, judge: {{model: NAME, base_url: URL}}")
        [described] = cases.values()
        return self._by_scenes(file, [case.prediction for case in described], words)

    def _by_scenes(self, file: ItemFile, descriptions: list[str], words: dict[str, str]) -> float:
        """By the demo's judge, which knows the scenes, and no other words than theirs."""
        scenes = json.loads(make_demo_inputs(self.config.demo).held_out_json.read_text())
        back, means = {new: old for old, new in words.items()}, []
        for description, item, scene in zip(descriptions, file.items.values(), scenes):
            tracks = [Track(**thing) for thing in scene["all_objects"]]
            asked = next(track for track in tracks if track.phrase in strip_tags(item.question)[0])
            means.append(statistics.mean(judge_scores(reworded(description, back), asked, tracks).values()))
        return statistics.mean(means)


def in_other_words(file: ItemFile, words: dict[str, str]) -> ItemFile:
    """The same items with some words of their questions exchanged."""
    items: dict[str, Any] = {
        key: replace(item, question=reworded(item.question, words)) for key, item in file.items.items()
    }
    return replace(file, items=items)


def reworded(text: str, words: dict[str, str]) -> str:
    """Example: reworded("the red circle", {"circle": "disc"}) -> "the red disc"."""
    return re.sub(r"\w+", lambda found: words.get(found[0], found[0]), text)
