"""The LLaVA-Video supplement: records whose videos can be read, one question and answer each, sampled and reported.

    swim llava --input LLaVA-Video-178K/*/*_oe_*.json --video_root LLaVA-Video-178K \\
        --path "{data_source}/{video}" --sample 100000 --by duration,source \\
        --output data/train/filtered_valid_llava_video_178k_0.json

A record stays when two frames of its video decode. Of a longer conversation the first question and answer stay. `--path`
makes the path below `--video_root` from the record's keys. `--sample N` draws N at random, with `--by` evenly from each
duration, source, or pair of both; what turns out unreadable is replaced by another of its kind. Duration and source come
from `data_source` ("0_30_s_youtube_v0_1"); without one there the duration is the video's. Writes the output and, beside
it, NAME.report.json.
"""

import json
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tqdm import tqdm

from swim.concurrently import run_concurrently
from swim.construct.outputs import ShardWriter
from swim.data.records import parse_record
from swim.data.root import DataRoot
from swim.data.streaming import stream_records
from swim.errors import DataError, Reason
from swim.files import file_sha256, write_atomically
from swim.video.clip import ClipLimits, VisualBudget, read_clip

_STRATA = ("duration", "source")
_SOURCE = re.compile(r"(\d+_\d+_[sm])_(.+?)(?:_v\d\w*)?$")
# Upper bounds in seconds, named as LLaVA-Video's folders are.
_DURATIONS = {"0_30_s": 30, "30_60_s": 60, "1_2_m": 120, "2_3_m": 180}
_PROBE_LIMIT_S = 30.0
_PROBE = ClipLimits(VisualBudget(max_frames=2, min_pixels=28 * 28, max_pixels=28 * 28 * 4))

console = Console(soft_wrap=True)


@dataclass(frozen=True)
class Candidate:
    """A sound record whose video is still to be opened. file, position: where it stands. path: of its video."""

    file: int
    position: int
    path: Path
    data_source: str
    shortened: bool


@dataclass(frozen=True)
class Probe:
    """What opening a video told. problem: why it cannot be used."""

    duration_s: float = 0.0
    problem: Reason | None = None


def rewrite(raw: dict, template: str) -> dict:
    """The record with its first question and answer alone, and with its path from the template.

    Raises DataError for a key that the record lacks, or a record that is malformed without this.
    """
    try:
        video = template.format_map(raw)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise DataError(f"--path {template!r} does not fit the record: {error!r}") from None
    turns = raw.get("conversations")
    kept = turns[:2] if isinstance(turns, list) else turns
    return {**raw, "video": video, "conversations": kept}


def find_candidates(files: list[Path], root: DataRoot, template: str) -> tuple[list[Candidate], Counter[str]]:
    """(the records that are sound as records, how many are not, by reason)."""
    found: list[Candidate] = []
    dropped: Counter[str] = Counter()
    for place, path in enumerate(files):
        for position, raw in enumerate(tqdm(stream_records(path), desc=f"reading {path.name}", unit="record", delay=2)):
            try:
                record = parse_record(rewrite(raw, template), f"{path}, record {position}", root)
            except DataError as error:
                dropped[str(error.reason)] += 1
                continue
            if not isinstance(record.path, Path):
                dropped[str(Reason.MALFORMED)] += 1  # a URL or a list of frames is none of LLaVA-Video's
                continue
            shortened = len(raw["conversations"]) > 2
            found.append(Candidate(place, position, record.path, str(raw.get("data_source", "")), shortened))
    return found, dropped


def probe(path: Path) -> Probe:
    """Decodes two frames."""
    try:
        clip = read_clip(path, _PROBE, time_limit_s=_PROBE_LIMIT_S)
    except DataError as error:
        return Probe(problem=error.reason)
    return Probe(clip.total / clip.fps)


class Prober:
    """Opens every video once, some at a time."""

    def __init__(self, workers: int):
        self.workers = workers
        self.known: dict[Path, Probe] = {}

    def __call__(self, candidates: list[Candidate]) -> list[Probe]:
        paths = [path for path in dict.fromkeys(c.path for c in candidates) if path not in self.known]
        opened = run_concurrently(paths, probe, self.workers)
        self.known.update(tqdm(opened, total=len(paths), desc="opening videos", unit="video", delay=2))
        return [self.known[candidate.path] for candidate in candidates]


def stratum_of(candidate: Candidate, by: list[str], prober: Prober) -> tuple[str, ...]:
    """What the candidate is sampled as. Example: ("0_30_s", "youtube") by duration and source."""
    match = _SOURCE.match(candidate.data_source)
    found = []
    for name in by:
        if name == "source":
            found.append(match.group(2) if match else candidate.data_source or "unknown")
        elif match:
            found.append(match.group(1))
        else:
            (seen,) = prober([candidate])
            found.append(next((name for name, end in _DURATIONS.items() if seen.duration_s <= end), "longer"))
    return tuple(found)


def even_quotas(available: dict, total: int) -> dict:
    """How many to take of each, as evenly as possible, `total` together or all. Example: {a: 1, b: 9}, 6 -> {a: 1, b: 5}."""
    quotas, rest = {}, total
    for place, (key, count) in enumerate(sorted(available.items(), key=lambda entry: (entry[1], entry[0]))):
        quotas[key] = min(count, rest // (len(available) - place))
        rest -= quotas[key]
    return quotas


def choose(
    candidates: list[Candidate], sample: int | None, by: list[str], seed: int, prober: Prober
) -> tuple[list[Candidate], Counter[str]]:
    """(the readable ones that were drawn, in the order of the input; unreadable ones by reason).

    The same seed draws the same ones.
    """
    if "duration" in by:  # together, not one by one
        prober([candidate for candidate in candidates if not _SOURCE.match(candidate.data_source)])
    strata: dict[tuple, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        strata[stratum_of(candidate, by, prober)].append(candidate)
    rng = random.Random(seed)
    for key in sorted(strata):
        rng.shuffle(strata[key])
    kept: dict[tuple, list[Candidate]] = {key: [] for key in strata}
    dropped: Counter[str] = Counter()
    total = len(candidates) if sample is None else sample
    while True:
        quotas = even_quotas({key: len(kept[key]) + len(strata[key]) for key in strata}, total)
        drawn = {key: strata[key][: max(0, quotas[key] - len(kept[key]))] for key in strata}
        if not any(drawn.values()):
            break
        probes = iter(prober([candidate for key in strata for candidate in drawn[key]]))
        for key in strata:
            strata[key] = strata[key][len(drawn[key]) :]
            for candidate, seen in [(candidate, next(probes)) for candidate in drawn[key]]:
                if seen.problem is None:
                    kept[key].append(candidate)
                else:
                    dropped[str(seen.problem)] += 1
    found = [candidate for key in kept for candidate in kept[key]]
    return sorted(found, key=lambda candidate: (candidate.file, candidate.position)), dropped


def write_records(files: list[Path], chosen: list[Candidate], template: str, output: Path):
    """Writes the chosen records, reading the files once more."""
    wanted = {(candidate.file, candidate.position) for candidate in chosen}
    writer = ShardWriter(output.parent, output.name.removesuffix(".json"), None)
    for place, path in enumerate(files):
        for position, raw in enumerate(stream_records(path)):
            if (place, position) in wanted:
                writer.add(rewrite(raw, template))
    writer.finish()


def filter_records(
    files: list[Path],
    root: DataRoot,
    output: Path,
    template: str = "{video}",
    sample: int | None = None,
    by: list[str] | None = None,
    seed: int = 0,
    workers: int = 1,
) -> dict:
    """Writes the output and its report; returns the report, whose records are kept + dropped + not_drawn.

    template: path of a video below `root`, from a record's keys. sample: how many to draw, None for all; by: evenly from
    each of "duration", "source" or pair of both. workers: videos opened at a time. Raises ValueError, DataError.
    """
    by = by or []
    if unknown := set(by) - set(_STRATA):
        raise ValueError(f"--by: expected {' or '.join(_STRATA)}, found {', '.join(sorted(unknown))}")
    if output.suffix != ".json":
        raise ValueError(f"--output must end in .json, found {output}")
    prober = Prober(workers)
    candidates, dropped = find_candidates(files, root, template)
    records = len(candidates) + dropped.total()
    chosen, unreadable = choose(candidates, sample, by, seed, prober)
    dropped += unreadable
    output.parent.mkdir(parents=True, exist_ok=True)
    write_records(files, chosen, template, output)
    strata = Counter("/".join(stratum_of(candidate, list(_STRATA), prober)) for candidate in chosen)
    report = {
        "inputs": [{"file": path.name, "sha256": file_sha256(path)} for path in files],
        "settings": {"path": template, "sample": sample, "by": by, "seed": seed},
        "records": records,
        "kept": len(chosen),
        "dropped": dict(dropped.most_common()),
        "not_drawn": records - len(chosen) - dropped.total(),
        "shortened_to_one_turn": sum(candidate.shortened for candidate in chosen),
        "kept_by_duration_and_source": dict(sorted(strata.items())),
    }
    write_atomically(output.with_suffix(".report.json"), json.dumps(report, indent=1) + "\n")
    return report
