"""`swim train --help`: every key with its type, its default and a sentence."""

import dataclasses
import json
import textwrap
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from trl import SFTConfig

from swim.train.arguments import ALIASES, HONOURED, NEED_EVALUATION, default_arguments
from swim.train.config import TrainConfig

WIDTH = 80  # a terminal's


def help_text(usage: str) -> str:
    """usage: what stands above the keys."""
    own = [
        _entry(name, _type_name(field.annotation), field.get_default(call_default_factory=True), field.description)
        for name, field in TrainConfig.model_fields.items()
        if name != "arguments"
    ]
    defaults, types = default_arguments(), get_type_hints(SFTConfig)
    honoured = [
        _entry(
            field.name, _type_name(types[field.name]), defaults.get(field.name), _on_one_line(field.metadata["help"])
        )
        for field in sorted(dataclasses.fields(SFTConfig), key=lambda field: field.name)
        if field.name in (HONOURED | NEED_EVALUATION) - set(TrainConfig.model_fields)
    ]
    also = textwrap.fill(
        f"{', '.join(sorted(ALIASES))} are earlier names of {', '.join(sorted(ALIASES.values()))}.", WIDTH
    )
    parts = [
        usage.strip(),
        "Keys stand in the YAML file, or on the command line as --key value; those of groups as --lora.r 8.",
        "Our own keys:",
        *own,
        "Arguments of trl.SFTConfig, with TRL's own words; others are refused with what to do instead:",
        *honoured,
        also,
    ]
    return "\n\n".join(part if part.startswith("  ") else _filled(part) for part in parts)


def _filled(text: str) -> str:
    return "\n\n".join(textwrap.fill(paragraph, WIDTH, break_long_words=False) for paragraph in text.split("\n\n"))


def _entry(name: str, kind: str, default: Any, text: str | None) -> str:
    head = f"  {name} ({kind}, {_default(default)})"
    folded = textwrap.fill(head, WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    indent = " " * 6
    return folded + "\n" + textwrap.fill(text or "", WIDTH, initial_indent=indent, subsequent_indent=indent)


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
