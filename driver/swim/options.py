"""What the keys share that a user writes, in a file or on the command line."""

from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

NO_VALUE = "expected a value, not a switch"


class Options(BaseModel):
    """Keys of which an unknown one is refused, and true where a number is asked for: `--fps` without a value is true."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_value(cls, value: Any, info: ValidationInfo) -> Any:
        leaves = _leaves(cls.model_fields[str(info.field_name)].annotation)
        takes = {bool, Any} & leaves
        if not isinstance(value, bool):  # a group has a look at its own keys
            takes |= {leaf for leaf in leaves if isinstance(leaf, type) and issubclass(leaf, (BaseModel, dict, list))}
        if _holds_a_switch(value) and not takes:
            raise PydanticCustomError("no_value", NO_VALUE)
        return value


def _leaves(annotation: Any) -> set[Any]:
    """{int, None} of dict[str, int] | None: what stands inside, without the keys of a dict."""
    inside = get_args(annotation)[1:] if get_origin(annotation) is dict else get_args(annotation)
    return set().union(*map(_leaves, inside)) if inside else {annotation}


def _holds_a_switch(value: Any) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, bool) or any(map(_holds_a_switch, inside))
