"""Reads the player's settings file: options of ``svm-tui play`` under their own names, without the dashes."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from streaming_vlm_mlx.errors import SvmError

FILE = "player.yaml"

AddOptions = Callable[[argparse.ArgumentParser], None]


def fill_in(args: argparse.Namespace, add_options: AddOptions, settings: Path, defaults: Mapping[str, object]) -> None:
    """Give each option of `args` that is None its value in the file `settings`, else the one in `defaults`.

    Args:
        args: the parsed command line.
        add_options: declares the options that the file may hold; all of them default to None.
        settings: YAML with one option a line; may be absent.
        defaults: values of options that neither the command line nor the file sets.

    Raises:
        SvmError: the file cannot be read, or has a key that is not an option, or a value that does not fit its option.
            The text names the line.
    """
    kept = read_options(settings, add_options) if settings.is_file() else {}
    for name, value in {**defaults, **kept}.items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)


def read_options(path: Path, add_options: AddOptions) -> dict[str, object]:
    """Return the options that the YAML file `path` sets, by the names that argparse gives them.

    Raises:
        SvmError: as `fill_in`.
    """
    from streaming_vlm_mlx.config_io import describe_unknown, read_lines

    parser = _Parser(allow_abbrev=False, add_help=False)
    add_options(parser)
    known = [name.replace("_", "-") for name in vars(parser.parse_args([]))]
    found: dict[str, object] = {}
    for line in read_lines(path):
        if line.key not in known:
            raise SvmError(f"{path}:{line.number}: {describe_unknown(str(line.key), known)}")
        try:
            parsed = parser.parse_args(_as_words(str(line.key), line.value))
        except _RefusedError as error:
            raise SvmError(f"{path}:{line.number}: {_explain(str(line.key), line.value, str(error))}") from error
        found |= {name: value for name, value in vars(parsed).items() if value is not None}
    return found


def _as_words(name: str, value: object) -> list[str]:
    """Return the option as a user would type it."""
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}={value}"]


def _explain(name: str, value: object, message: str) -> str:
    """Return what argparse says against a value, for a file instead of a command line."""
    if "ignored explicit argument" in message:
        return f"{name} is {value!r}; it must be true or false."
    if "unrecognized arguments" in message:
        return f"{name} is {value!r}; it is not a switch and needs a value."
    return f"{name}: {message.partition(': ')[2]}."


class _RefusedError(Exception):
    """What argparse says against an option."""


class _Parser(argparse.ArgumentParser):
    """Raises an error instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Refuse an option."""
        raise _RefusedError(message)
