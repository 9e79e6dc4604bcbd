"""What the keys share that a user writes."""

from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError

from swim.options import Options


class Inner(Options):
    rate: float = 1.0
    on: bool = False


class Some(Options):
    count: int | None = Field(None, ge=1)
    name: str = ""
    on: bool = False
    maybe: bool | str = False
    whatever: dict[str, Any] = {}
    choice: Literal["a", "b"] = "a"
    inner: Inner | None = None
    rates: dict[Literal["a"], float] = {}
    steps: list[int] | None = None
    inners: list[Inner] = []


@pytest.mark.parametrize(
    "given",
    [
        {"count": True},
        {"name": True},
        {"choice": False},
        {"inner": {"rate": True}},
        {"rates": {"a": True}},
        {"steps": [1, True]},
        {"inners": [{"rate": True}]},
    ],
)
def test_a_switch_is_no_value(given):
    with pytest.raises(ValidationError, match="expected a value, not a switch"):
        Some.model_validate(given)


def test_a_switch_is_a_switch():
    some = Some.model_validate({"on": True, "maybe": True, "whatever": {"a": True}, "count": 1})
    assert Some.model_validate({"inner": {"on": True}, "inners": [{"on": True}]}).inners[0].on
    assert some.on is True and some.maybe is True and some.whatever == {"a": True} and some.count == 1


def test_an_unknown_key_is_refused():
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Some.model_validate({"cuont": 1})
