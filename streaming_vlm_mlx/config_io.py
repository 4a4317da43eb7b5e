"""Reads settings into frozen dataclasses and checks each value against its field's type.

`FromDict.from_dict` is lenient: it ignores keys that it does not know, as a hub's ``config.json`` has them.
`read_config` and `read_settings` are strict: what a user writes has no unknown key.
"""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Generator, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import read_file

# The largest file of settings, of which PyYAML reads a tenth of a megabyte a second, and the most values in one; a file
# of settings has a hundred.
_LARGEST_SETTINGS, _MOST_NODES = 128 << 10, 10_000
_LARGEST_INT = (1 << 63) - 1
# Characters of a value in a message.
_LONGEST_SHOWN = 80


class FromDict:
    """A dataclass that is read from plain values and written back."""

    __slots__ = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from `values`; unknown keys are ignored, nested parts are built from their own mapping.

        A null stands for the default, except where a field takes None.

        Raises:
            SvmError: a value has the wrong type, or `check` refuses it.
        """
        hints = _types(typing.cast(Hashable, cls))
        known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        given = {k: values[k] for k in known if k in values and (values[k] is not None or _takes_none(hints[k]))}
        made = cls(**{k: _fit(hints[k], v, f"{cls.__name__}.{k}") for k, v in given.items()})
        made.check()
        return made

    @classmethod
    def overlays(cls) -> dict[str, type["FromDict"]]:
        """Return the type of settings behind each field that holds a plain mapping of overrides.

        Such a field is a ``dict[str, Any]`` that a caller passes to `merged` of that type later. With this, its keys
        are checked when the file is read: ``{"stream": StreamConfig}`` refuses ``stream: {windwo: 4}``.
        """
        return {}

    @classmethod
    def renamed(cls) -> dict[str, str]:
        """Return the current name of each setting that had another one in an earlier version, by the old name.

        A file with an old name is refused with a message that gives the new one.
        """
        return {}

    def check(self) -> None:
        """Check values that have the right type but cannot work.

        Raises:
            SvmError: names the setting and what it can be.
        """

    def merged(self, values: Mapping[str, Any]) -> Self:
        """Return a copy in which `values` replace this one's, nested parts field by field.

        Raises:
            SvmError: a value has the wrong type.
        """
        return self.from_dict(_overlay(self.to_dict(), values))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `from_dict` reads back, tuples as lists."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]


@functools.cache
def _types(kind: Hashable) -> dict[str, Any]:
    """Return the types of `kind`'s fields by name; a session has thousands of seconds, and each asks."""
    return typing.get_type_hints(typing.cast(type, kind))


def _overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    nested = {
        k: _overlay(base[k], v) for k, v in over.items() if isinstance(v, Mapping) and isinstance(base.get(k), dict)
    }
    return {**base, **over, **nested}


def _plain(value: object) -> object:
    if isinstance(value, FromDict):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def shown(value: object) -> str:
    """Return `value` for a message, shortened."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        # A number of more digits than Python writes.
        text = f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _takes_none(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def demand(met: bool, name: str, value: object, rule: str) -> None:
    """Check that `met` holds for `value` of the setting `name`; `rule` completes "it must be".

    Raises:
        SvmError: it does not hold; the text has the name, the value and the rule.
    """
    if not met:
        raise SvmError(f"{name} is {shown(value)}; it must be {rule}.")


# Above the largest side of an MLX array, and far above the layers of any model, each of which is built as an object.
_SIZE_LIMIT, _LAYER_LIMIT = 1 << 31, 1000
_LAYERS = ("num_hidden_layers", "depth")


def demand_sizes(part: object, name: str) -> None:
    """Check that all whole numbers in the settings `part`, which messages call `name`, can be sizes: 1 or more.

    Raises:
        SvmError: names the setting.
    """
    for field_name, value in vars(part).items():
        if type(value) is int:
            demand(value >= 1, f"{name}.{field_name}", value, "1 or more")
            limit = _LAYER_LIMIT if field_name in _LAYERS else _SIZE_LIMIT
            demand(value < limit, f"{name}.{field_name}", value, f"less than {limit}")


def part_of(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the settings nested under `name` in `values`; an empty mapping where it is absent or null.

    Raises:
        SvmError: what is there is not a mapping.
    """
    part = values.get(name) or {}
    demand(isinstance(part, Mapping), name, part, "a mapping of settings")
    return typing.cast(Mapping[str, Any], part)


def _fit(hint: Any, value: Any, name: str) -> Any:
    """Return `value` as the type `hint`; only whole floats to ints and lists to tuples are converted."""
    if isinstance(value, int) and hint is not float:
        demand(-_LARGEST_INT <= value <= _LARGEST_INT, name, value, "a whole number of 64 bits")
    if value is None and _takes_none(hint):
        return None
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _fit(next(a for a in typing.get_args(hint) if a is not type(None)), value, name)
    if origin is Literal:
        if isinstance(value, Hashable) and value in typing.get_args(hint):
            return value
        raise SvmError(f"{name} is {shown(value)}; it can be {', '.join(map(repr, typing.get_args(hint)))}.")
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return typing.cast(Any, hint).from_dict(value)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_fit(typing.get_args(hint)[0], v, name) for v in value)
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise SvmError(f"{name} is {shown(value)}; it must be a number that a float can hold.") from None
    if hint is int and isinstance(value, float) and value.is_integer():
        return _fit(int, int(value), name)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise SvmError(f"{name} is {shown(value)}; it must be of type {getattr(hint, '__name__', hint)}.")


C = TypeVar("C", bound=FromDict)


def read_config(path: Path, kind: type[C]) -> C:
    """Return the settings of `kind` in the YAML file `path`.

    Raises:
        SvmError: as `read_settings`.
    """
    return kind.from_dict(read_settings(path, kind))


def read_settings(path: Path, kind: type[FromDict]) -> dict[str, Any]:
    """Return the settings of `kind` that the YAML file `path` sets, checked, as plain values for `FromDict.merged`.

    Raises:
        SvmError: the file is absent or damaged, has a key that is not a setting, or a value that does not fit its
            setting. The text names the line of the setting, or of the part whose settings do not go together.
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
    """Return what is wrong with a key that is not a setting, and which setting it may mean."""
    renamed = setting.part.renamed().get(str(setting.key))
    if renamed:
        return f"{setting.name!r} is now called {setting.above + renamed!r}; rename it."
    return describe_unknown(setting.name, _hints(setting.part))


def describe_unknown(name: str, known: Iterable[str]) -> str:
    """Return a sentence about a setting that does not exist, with the name in `known` that is spelt most alike.

    Args:
        name: as written, with the parts above it and dots between them.
        known: names of the settings in that part.
    """
    near = difflib.get_close_matches(name.rpartition(".")[2], list(known), 1)
    return f"there is no setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else ".")


@dataclass(frozen=True, slots=True)
class SettingLine:
    """A key at the top level of a settings file.

    Attributes:
        key: as in the file.
        value: as in the file.
        number: of its line, counted from 1.
        inner: the line numbers of the keys in the value, where that is a mapping.
    """

    key: Hashable
    value: object
    number: int
    inner: Mapping[Hashable, int]


def read_lines(path: Path) -> list[SettingLine]:
    """Return the settings in the YAML file `path` with their line numbers, in the file's order.

    Raises:
        SvmError: as `read_yaml`.
    """
    values = read_yaml(path, _Loader)
    lines = values.lines if isinstance(values, _Block) else {}
    return [
        SettingLine(key, value, lines[key], value.lines if isinstance(value, _Block) else {})
        for key, value in values.items()
    ]


def read_yaml(path: Path, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> dict[str, Any]:
    """Return the mapping in the YAML file `path`, as `loader` builds it; an empty file is an empty mapping.

    Raises:
        SvmError: the file is absent, is not YAML, or is not a mapping.
    """
    try:
        values = _load_yaml(read_file(path, _LARGEST_SETTINGS).decode("utf-8"), loader)
    except RecursionError as error:
        raise SvmError(f"{path} is nested too deeply; settings have a few levels.") from error
    # PyYAML raises whatever a conversion does: '2020-13-45', '!!int abc', '!!bool maybe'.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # Python's words on a number of thousands of digits name one of its functions.
        problem = "a number is too long" if "set_int_max_str_digits" in str(error) else " ".join(str(error).split())
        raise SvmError(f"{path} is not YAML: {problem:.200}.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SvmError(f"{path} holds a {type(values).__name__}; settings are lines of 'name: value'.")
    return values


def _load_yaml(text: str, loader: type[yaml.SafeLoader]) -> object:
    """Return what the YAML `text` holds.

    Raises:
        yaml.YAMLError: it is not YAML, or its aliases stand for more than `_MOST_NODES` values.
    """
    reader = loader(text)
    try:
        node = reader.get_single_node()
        if node is None:
            return None
        if _count_nodes(node, {}) > _MOST_NODES:
            raise yaml.YAMLError(f"it holds more than {_MOST_NODES} values")
        return reader.construct_document(node)
    finally:
        reader.dispose()


def _count_nodes(node: yaml.Node, counts: dict[int, int]) -> int:
    """Return how many values `node` holds when each alias is written out; `counts` keeps those of other nodes."""
    known = counts.get(id(node))
    if known is None:
        # A node that contains itself would never end.
        counts[id(node)] = _MOST_NODES + 1
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        inner = 0 if isinstance(node, yaml.ScalarNode) else sum(_count_nodes(part, counts) for part in parts)
        known = counts[id(node)] = 1 + inner
    return known


class _Block(dict[Hashable, Any]):
    """A mapping in a YAML file.

    Attributes:
        lines: the line number of each key, counted from 1.
    """

    lines: dict[Hashable, int]


class _Loader(yaml.SafeLoader):
    """Reads mappings as `_Block`."""

    def construct_yaml_map(self, node: yaml.MappingNode) -> Generator[_Block, None, None]:
        """Yield the mapping, then fill it, so that its values can refer to it."""
        block = _Block()
        yield block
        block.update(self.construct_mapping(node))
        # By now node.value also has the keys that a "<<" merges in, before the mapping's own.
        block.lines = {self.construct_object(key): key.start_mark.line + 1 for key, _ in node.value}


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_yaml_map)


@dataclass(frozen=True)
class _Setting:
    """A key in a settings file, at any depth.

    Attributes:
        part: the settings that the key must be a field of.
        key: as in the file.
        value: as in the file.
        above: the keys that it is nested in, each with a dot after it.
        line: counted from 1.
    """

    part: type[FromDict]
    key: Hashable
    value: Any
    above: str
    line: int

    @property
    def name(self) -> str:
        """The key with those above it."""
        return f"{self.above}{self.key}"

    def refusal(self) -> str:
        """Return the error of this setting when all others have their defaults; "" when there is none."""
        try:
            self.part.from_dict({str(self.key): self.value})
        except SvmError as error:
            return str(error)
        return ""


def _settings(part: type[FromDict], values: object, above: str) -> Iterator[_Setting]:
    """Yield the settings of `part` in `values`, each after those that are nested in it."""
    if not isinstance(values, _Block):
        return
    hints = _hints(part)
    for key, value in values.items():
        inner = _part_of(hints.get(str(key)))
        for item in (value if isinstance(value, list) else [value]) if inner else ():
            yield from _settings(typing.cast(type[FromDict], inner), item, f"{above}{key}.")
        yield _Setting(part, key, value, above, values.lines[key])


def _hints(part: type[FromDict]) -> dict[str, Any]:
    """Return the types of `part`'s fields by name."""
    return _types(typing.cast(Hashable, part)) | part.overlays()


def _part_of(hint: Any) -> type[FromDict] | None:
    """Return the settings class in `hint`, which may be optional or a tuple; None where there is none."""
    for candidate in (hint, *typing.get_args(hint)):
        if isinstance(candidate, type) and issubclass(candidate, FromDict):
            return candidate
    return None
