"""What the keys share that a user writes, in a file or on the command line."""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

NO_VALUE = "expected a value, not a switch"


class Options(BaseModel):
    """Keys of which an unknown one is refused, and true where a number is asked for: `--fps` without a value is true."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_value(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and not _takes_a_switch(cls.model_fields[str(info.field_name)].annotation):
            raise PydanticCustomError("no_value", NO_VALUE)
        return value


def _takes_a_switch(annotation: Any) -> bool:
    return annotation in (bool, Any) or any(map(_takes_a_switch, get_args(annotation)))
