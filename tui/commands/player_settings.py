"""The player's settings file: options under their own names, for every time that they are not given."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from streaming_vlm_mlx.errors import SvmError

FILE = "player.yaml"


def fill_in(
    args: argparse.Namespace,
    add_options: Callable[[argparse.ArgumentParser], None],
    settings: Path,
    defaults: Mapping[str, Any],
) -> None:
    """Give each option of `args` that is None its value in the file `settings`, else the one in `defaults`.

    Args:
        args: what was typed.
        add_options: declares the options that the file may hold, all of them None when they are not given.
        settings: YAML, a line an option; may be absent.
        defaults: values of options that neither names.

    Raises:
        SvmError: the file cannot be read, or holds something that is no option or no value of it.
    """
    kept = vars(_read(settings, add_options)) if settings.is_file() else {}
    for name, value in {**defaults, **{name: value for name, value in kept.items() if value is not None}}.items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)


def _read(path: Path, add_options: Callable[[argparse.ArgumentParser], None]) -> argparse.Namespace:
    from streaming_vlm_mlx.config_io import read_yaml

    parser = _Parser(path, allow_abbrev=False, add_help=False)
    add_options(parser)
    return parser.parse_args([word for name, value in read_yaml(path).items() for word in _words(str(name), value)])


def _words(name: str, value: object) -> Iterator[str]:
    """Yield the option as it would be typed."""
    if isinstance(value, bool):
        yield f"--{name}" if value else f"--no-{name}"
    elif value is not None:
        yield f"--{name}={value}"


class _Parser(argparse.ArgumentParser):
    """Tells of a bad line in one sentence, and goes on."""

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(**options)
        self._path = path

    def error(self, message: str) -> NoReturn:
        """Refuse the file."""
        raise SvmError(f"{self._path}: {message}; name options as 'svm-tui play --help' does.")
