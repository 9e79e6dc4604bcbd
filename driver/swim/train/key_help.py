"""What `swim train --help` says of every key."""

import dataclasses
import json
import textwrap
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from swim.train.arguments import ALIASES, NEED_EVALUATION
from swim.train.config import TrainConfig

WIDTH = 80  # a terminal's


def help_text(usage: str, config: type[TrainConfig] = TrainConfig, verb: str = "train") -> str:
    """All keys: ours with a sentence, TRL's with type and default. usage: what stands above the keys."""
    own = [name for name in config.model_fields if name != "arguments"]
    also = f"{', '.join(sorted(ALIASES))} are earlier names of {', '.join(sorted(ALIASES.values()))}."
    parts = [
        usage.strip(),
        "Keys go in the YAML file, or on the command line as --key value; grouped keys as --lora.r 8.",
        "Our own keys:",
        *[entry_of(name, config) for name in own],
        f"Arguments of trl.{config.table.kind.__name__} (swim {verb} --help KEY explains one); others are refused with what "
        "to do instead:",
        "\n".join(_head(name, *_of_trl(name, config)[:2]) for name in sorted(_taken_of_trl(config))),
        also,
    ]
    return "\n\n".join(part if part.startswith("  ") else _filled(part) for part in parts)


def reference() -> str:
    """The same as a page of Markdown."""
    rows = []
    for name, field in TrainConfig.model_fields.items():
        if name != "arguments":
            default = _default(field.get_default(call_default_factory=True)).removeprefix("default ")
            kind = _type_name(field.annotation).replace("|", "\\|")
            rows.append(f"| `{name}` | {kind} | `{default}` | {field.description} |")
    trl = [
        f"| `{name}` | {_of_trl(name, TrainConfig)[0]} | `{_default(_of_trl(name, TrainConfig)[1])[8:]}` |"
        for name in sorted(_taken_of_trl(TrainConfig))
    ]
    refused = [f"| `{name}` | {why} |" for name, why in sorted(TrainConfig.table.refused.items())]
    parts = [
        "# Keys of a training configuration",
        "They go in the YAML file, or on the command line as `--key value`; grouped keys as `--lora.r 8`. This page is "
        "made from the code by `python -m tests.test_docs`.",
        "## Our own keys",
        "\n".join(["| key | type | default | |", "|---|---|---|---|", *rows]),
        "## Arguments of trl.SFTConfig",
        "`swim train --help KEY` shows TRL's own explanation.",
        "\n".join(["| key | type | default |", "|---|---|---|", *trl]),
        "## Arguments of trl.SFTConfig that are refused",
        "They would change nothing here; each is answered with this.",
        "\n".join(["| key | instead |", "|---|---|", *refused]),
    ]
    return "\n\n".join(parts) + "\n"


def entry_of(key: str, config: type[TrainConfig] = TrainConfig) -> str:
    """One key: type, default and a sentence, in TRL's own words for its arguments. Says so when there is no such key."""
    if key in config.model_fields and key != "arguments":
        field = config.model_fields[key]
        found = _type_name(field.annotation), field.get_default(call_default_factory=True), field.description
    elif key in _taken_of_trl(config):
        found = _of_trl(key, config)
    else:
        return f"  {key}: no such key; --help lists all"
    indent = " " * 6
    sentence = textwrap.fill(found[2] or "", WIDTH, initial_indent=indent, subsequent_indent=indent)
    return f"{_head(key, *found[:2])}\n{sentence}"


def _taken_of_trl(config: type[TrainConfig]) -> frozenset[str]:
    table = config.table
    return (table.honoured | (NEED_EVALUATION - table.refused.keys())) - set(config.model_fields)


def _of_trl(name: str, config: type[TrainConfig]) -> tuple[str, Any, str]:
    """(type, default, TRL's words) of an argument of TRL's configuration."""
    table = config.table
    (field,) = (field for field in dataclasses.fields(table.kind) if field.name == name)
    words = _on_one_line(field.metadata["help"])
    return _type_name(get_type_hints(table.kind)[name]), table.defaults().get(name), words


def _filled(text: str) -> str:
    return "\n\n".join(textwrap.fill(paragraph, WIDTH, break_long_words=False) for paragraph in text.split("\n\n"))


def _head(name: str, kind: str, default: Any) -> str:
    head = f"  {name} ({kind}, {_default(default)})"
    return textwrap.fill(head, WIDTH, subsequent_indent="    ", break_on_hyphens=False)


def _default(value: Any) -> str:
    """As it would stand in the YAML."""
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        value = value.model_dump()
    shown = json.dumps(getattr(value, "value", value), default=str)
    return f"default {shown if len(shown) <= 200 else shown[:197] + '...'}"


def _type_name(annotation: Any) -> str:
    """A type as one writes a value of it: "int or null", "fail or skip", "list of str"."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_type_name, parts)))
    if origin is Literal:
        return " or ".join(str(part).lower() if isinstance(part, bool) else str(part) for part in parts)
    if origin is Annotated:
        return _type_name(parts[0])
    if origin is list:
        return f"list of {_type_name(parts[0])}"
    if origin is dict or annotation is dict or _is_a(annotation, BaseModel):
        return "mapping"
    if annotation is NoneType:
        return "null"
    return "str" if _is_a(annotation, Enum) else getattr(annotation, "__name__", str(annotation))


def _is_a(annotation: Any, kind: type) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, kind)


def _on_one_line(text: str) -> str:
    """TRL writes its help for argparse, where a percent sign is doubled."""
    return " ".join(text.replace("%%", "%").split())
