"""The YAML mixture: which files, how much of each, as one `datasets.Dataset` of raw records."""

import json
import random
import re
from pathlib import Path

import yaml
from datasets import Dataset
from pydantic import BaseModel, ConfigDict, ValidationError

from swim.data.errors import DataError

_STRATEGY = re.compile(r"(first|end|random):(\d+(?:\.\d+)?%|\d+)")


class _Source(BaseModel):
    model_config = ConfigDict(extra="forbid")
    json_path: str
    data_root: str = "."
    sampling_strategy: str = "all"


class _Mixture(BaseModel):
    model_config = ConfigDict(extra="forbid")
    datasets: list[_Source]


def load_mixture(config_path: str | Path, seed: int = 0) -> Dataset:
    """The mixture's records as a Dataset with the string columns `record` (JSON), `where` and `data_root`.

    Relative paths in the YAML are relative to the YAML file. Rows stay raw; the collator decodes them.
    Raises DataError for a missing file, malformed YAML or JSON, an unknown key or an unknown strategy.
    """
    config_path = Path(config_path)
    mixture = _read_yaml(config_path)
    columns = {"record": [], "where": [], "data_root": []}
    for source in mixture.datasets:
        path = config_path.parent / source.json_path
        records = _read_json(path)
        for position in select(len(records), source.sampling_strategy, seed):
            columns["record"].append(json.dumps(records[position], ensure_ascii=False))
            columns["where"].append(f"{path}, record {position}")
            columns["data_root"].append(str(config_path.parent / source.data_root))
    if not columns["record"]:
        raise DataError("the mixture selects no record; check sampling_strategy and the files", str(config_path))
    return Dataset.from_dict(columns)


def select(count: int, strategy: str, seed: int = 0) -> list[int]:
    """Positions of the records that a strategy takes: "all", "first:N", "end:N", "random:N", and N may be "P%".

    Example: select(10, "end:20%") -> [8, 9]. A random choice keeps the file's order and depends on `seed` alone.
    Raises DataError for an unknown strategy, or for more records than there are.
    """
    if strategy == "all":
        return list(range(count))
    match = _STRATEGY.fullmatch(strategy)
    if match is None:
        raise DataError(
            f"sampling_strategy: expected all, first:N, end:N or random:N, where N is a number or P%, found {strategy!r}"
        )
    kind, amount = match.groups()
    wanted = round(count * float(amount[:-1]) / 100) if amount.endswith("%") else int(amount)
    if wanted > count:
        raise DataError(f"sampling_strategy: {strategy} asks for {wanted} records of a file with {count}")
    if kind == "random":
        return sorted(random.Random(seed).sample(range(count), wanted))
    return list(range(wanted)) if kind == "first" else list(range(count - wanted, count))


def _read_yaml(path: Path) -> _Mixture:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _Mixture.model_validate(content)
    except FileNotFoundError:
        raise DataError("no such data config; expected a YAML file like data_config/videorefer.yaml", str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"malformed YAML: {error}", str(path)) from None
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise DataError(
            f"{field}: {problem['msg']}; expected datasets: [{{json_path, data_root, sampling_strategy}}]", str(path)
        ) from None


def _read_json(path: Path) -> list:
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("no such file; fix json_path in the data config", str(path)) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"malformed JSON: {error}", str(path)) from None
    if not isinstance(records, list):
        raise DataError(f"expected a JSON list of records, found {type(records).__name__}", str(path))
    return records
