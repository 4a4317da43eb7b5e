"""How settings are read from plain values: a frozen dataclass a part, each value checked against its field's type."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Self

from streaming_vlm_mlx.errors import SvmError


class FromDict:
    """Reads a dataclass from plain values and writes it back."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from `values`; keys that are not fields are ignored, nested parts are built from their own mapping.

        A null stands for the default, save where a field takes None.

        Raises:
            SvmError: a value is of another type than its field, or `check` refuses it.
        """
        hints = typing.get_type_hints(cls)
        known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        given = {k: values[k] for k in known if k in values and (values[k] is not None or _takes_none(hints[k]))}
        made = cls(**{k: _fit(hints[k], v, f"{cls.__name__}.{k}") for k, v in given.items()})
        made.check()
        return made

    def check(self) -> None:
        """Refuse values that no program can run under.

        Raises:
            SvmError: names the setting and what it can be.
        """

    def merged(self, values: Mapping[str, Any]) -> Self:
        """Return a copy with `values` laid over it, nested parts field by field.

        Raises:
            SvmError: a value is of another type than its field.
        """
        return self.from_dict(_overlay(self.to_dict(), values))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `from_dict` reads back, tuples as lists."""
        return typing.cast(dict[str, Any], _plain(dataclasses.asdict(self)))  # type: ignore[call-overload]


def _overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    nested = {
        k: _overlay(base[k], v) for k, v in over.items() if isinstance(v, Mapping) and isinstance(base.get(k), dict)
    }
    return {**base, **over, **nested}


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _takes_none(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def demand(met: bool, name: str, value: object, rule: str) -> None:
    """Refuse `value`, of the setting `name`, unless what must hold is `met`; `rule` says what it can be.

    Raises:
        SvmError: names all three.
    """
    if not met:
        raise SvmError(f"{name} is {value!r}; it must be {rule}.")


def demand_sizes(part: object, name: str) -> None:
    """Refuse whole numbers below 1 in the settings `part`, which messages call `name`.

    Raises:
        SvmError: names the setting.
    """
    for field_name, value in vars(part).items():
        demand(type(value) is not int or value >= 1, f"{name}.{field_name}", value, "1 or more")


def _fit(hint: Any, value: Any, name: str) -> Any:
    """Return `value` as the type `hint`; whole floats become ints and lists tuples, nothing else is bent."""
    if value is None and _takes_none(hint):
        return None
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _fit(next(a for a in typing.get_args(hint) if a is not type(None)), value, name)
    if origin is Literal:
        if value in typing.get_args(hint):
            return value
        raise SvmError(f"{name} is {value!r}; it can be {', '.join(map(repr, typing.get_args(hint)))}.")
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return typing.cast(Any, hint).from_dict(value)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_fit(typing.get_args(hint)[0], v, name) for v in value)
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise SvmError(f"{name} is {value!r}; it must be of type {getattr(hint, '__name__', hint)}.")
