"""The options of a row: frozen, checked, described beside the field, no unknown key."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from finepref.core.errors import InputError, cut

LARGEST = 3.4028234663852886e38
"""The largest float32: numbers beyond it would be infinite where they are used."""


class Options(BaseModel):
    """Options of one row of a table; without fields: none. Every field has a default, a bound and a description.

    Numbers are finite, and float32 holds them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _fits(cls, value: Any) -> Any:
        if isinstance(value, float) and abs(value) > LARGEST:
            raise ValueError(f"float32 ends at {LARGEST:.3g}")
        return value


def told(default: Any, description: str, **bounds: Any) -> Any:
    """A field with what it means, and its bounds."""
    return Field(default, description=description, **bounds)


Model = TypeVar("Model", bound=BaseModel)


def read_options(options: type[Model], given: Mapping[str, Any]) -> Model:
    """The options of a row of the command line.

    Raises:
        InputError: a value that is not possible, with its name.
    """
    try:
        return options.model_validate(dict(given))
    except ValidationError as error:
        one = error.errors()[0]
        what = f"{cut(repr(one['input']))} is not possible"
        raise InputError(what, where=one["loc"][0], remedy=one["msg"].removeprefix("Value error, ")) from None


def check_function(function: Callable[..., Any], options: type[BaseModel], *takes: str, positional: int) -> None:
    """Refuse a row's function that cannot be called with its row's options.

    Args:
        function: takes `positional` arguments, then keyword arguments: the fields of `options`, and `takes`.

    Raises:
        InputError: an option without default or description; keyword arguments that differ.
    """
    for name, field in options.model_fields.items():
        if field.is_required():
            raise InputError(f"option {name} has no default", remedy="give it one")
        if not field.description:
            remedy = f'write {name}: Annotated[..., Field(description="what it does")] = ...'
            raise InputError(f"option {name} has no description", remedy=remedy)
    own = list(inspect.signature(function).parameters.values())[positional:]
    wanted, known = {*options.model_fields, *takes}, {each.name for each in own}
    missing = wanted - known if all(each.kind is not each.VAR_KEYWORD for each in own) else set()
    unknown = {each.name for each in own if each.default is each.empty and each.kind is not each.VAR_KEYWORD} - wanted
    if missing or unknown:
        what = f"its function takes no {min(missing)!r}" if missing else f"{min(unknown)!r} is none of its options"
        raise InputError(what, remedy="the arguments after the * are the fields of its options")
