"""How settings are read from plain values: a frozen dataclass a part, each value checked against its field's type."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Generator, Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml

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

    @classmethod
    def overlays(cls) -> dict[str, type["FromDict"]]:
        """Return, by field, the settings that a mapping in that field is laid over, and whose keys it has."""
        return {}

    @classmethod
    def renamed(cls) -> dict[str, str]:
        """Return the new names of settings that had another one in earlier versions, by the old name."""
        return {}

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


C = TypeVar("C", bound=FromDict)


def read_config(path: Path, kind: type[C]) -> C:
    """Return the settings of `kind` in the YAML file `path`.

    Raises:
        SvmError: as `read_settings`.
    """
    return kind.from_dict(read_settings(path, kind))


def read_settings(path: Path, kind: type[FromDict]) -> dict[str, Any]:
    """Return the settings of `kind` that the YAML file `path` sets, checked, as plain values to merge over others.

    Raises:
        SvmError: the file is absent or damaged, has a key that is no setting, or a value that does not fit one. The
            text names the line of the setting, or of the part whose settings do not go together.
    """
    values = read_yaml(path, _Loader)
    settings = list(_settings(kind, values, ""))
    for setting in settings:
        if setting.key not in _hints(setting.part):
            raise SvmError(f"{path}:{setting.line}: {_unknown(setting)}")
    try:
        kind.from_dict(values)
    except SvmError as error:
        line = next((f":{setting.line}" for setting in settings if setting.refusal() == str(error)), "")
        raise SvmError(f"{path}{line}: {error}") from error
    return values


def _unknown(setting: "_Setting") -> str:
    """Return what is wrong with a key that is no setting, and which one it may have meant."""
    renamed = setting.part.renamed().get(str(setting.key))
    if renamed:
        return f"{setting.name!r} is now called {renamed!r}; rename it."
    near = difflib.get_close_matches(str(setting.key), _hints(setting.part), 1)
    return f"there is no setting {setting.name!r}" + (f"; did you mean {near[0]!r}?" if near else ".")


def read_yaml(path: Path, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> dict[str, Any]:
    """Return the mapping in the YAML file `path`, as `loader` makes it; an empty file is an empty mapping.

    Raises:
        SvmError: the file is absent, is not YAML, or holds something other than a mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), loader)
    except OSError as error:
        raise SvmError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SvmError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SvmError(f"{path} holds a {type(values).__name__}; settings are lines of 'name: value'.")
    return values


class _Block(dict[Hashable, Any]):
    """A mapping of a YAML file.

    Attributes:
        lines: where each key stands, counted from 1.
    """

    lines: dict[Hashable, int]


class _Loader(yaml.SafeLoader):
    """Reads mappings as `_Block`."""

    def construct_yaml_map(self, node: yaml.MappingNode) -> Generator[_Block, None, None]:
        """Yield the mapping, then fill it; so can what is in it refer to it."""
        block = _Block()
        yield block
        block.update(self.construct_mapping(node))
        # Here the keys that a "<<" brings in are among the node's own, and before them.
        block.lines = {self.construct_object(key): key.start_mark.line + 1 for key, _ in node.value}


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_yaml_map)


@dataclass(frozen=True)
class _Setting:
    """A key in the file.

    Attributes:
        part: whose field it is, or ought to be.
        key: as in the file.
        value: as in the file.
        name: the key behind those above it, with dots.
        line: counted from 1.
    """

    part: type[FromDict]
    key: Hashable
    value: Any
    name: str
    line: int

    def refusal(self) -> str:
        """Return what is said against this setting where all others have their defaults; "" for nothing."""
        try:
            self.part.from_dict({str(self.key): self.value})
        except SvmError as error:
            return str(error)
        return ""


def _settings(part: type[FromDict], values: object, above: str) -> Iterator[_Setting]:
    """Yield the settings of `part` in `values`, each behind those that are nested in it."""
    if not isinstance(values, _Block):
        return
    hints = _hints(part)
    for key, value in values.items():
        inner = _part_of(hints.get(str(key)))
        for item in (value if isinstance(value, list) else [value]) if inner else ():
            yield from _settings(typing.cast(type[FromDict], inner), item, f"{above}{key}.")
        yield _Setting(part, key, value, f"{above}{key}", values.lines[key])


def _hints(part: type[FromDict]) -> dict[str, Any]:
    """Return the types of `part`'s fields by name."""
    return typing.get_type_hints(part) | part.overlays()


def _part_of(hint: Any) -> type[FromDict] | None:
    """Return the part in `hint`, which may be optional or a tuple of many."""
    for candidate in (hint, *typing.get_args(hint)):
        if isinstance(candidate, type) and issubclass(candidate, FromDict):
            return candidate
    return None
