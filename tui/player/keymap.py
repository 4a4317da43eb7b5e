"""Keys that the viewer gave to the player's actions."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from textual.binding import Binding, BindingType
from textual.keys import KEY_NAME_REPLACEMENTS, Keys

from streaming_vlm_mlx.config_io import describe_unknown, shown
from streaming_vlm_mlx.errors import SvmError

MODIFIERS = {"ctrl", "shift", "alt", "super", "meta", "hyper"}
NAMES = {key.value for key in Keys} | set(KEY_NAME_REPLACEMENTS.values())

Keymap = Mapping[str, str]

# Textual's names of keys, and how they are shown.
KEYS = {
    "left": "←",
    "right": "→",
    "up": "↑",
    "down": "↓",
    "full_stop": ".",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "slash": "/",
    "minus": "-",
    "equals_sign": "=",
    "question_mark": "?",
    "0": "0–9",
    "greater_than_sign": ">",
    "less_than_sign": "<",
}


def check_keymap(values: object, bindings: Iterable[BindingType]) -> dict[str, str]:
    """Return `values`, keys by the name of an action, as Textual's keymap.

    Args:
        values: as a settings file has it: an action's name and its key, or several with commas.
        bindings: the actions that have a name, as their id.

    Raises:
        SvmError: it is not a mapping, there is no such action or key, or two actions have the same key.
    """
    if not isinstance(values, Mapping):
        raise SvmError(f"keys is {shown(values)}; it must be a mapping of actions to keys, such as 'play: x'.")
    bindings = list(bindings)
    known = [binding.id for binding in bindings if isinstance(binding, Binding) and binding.id]
    keymap: dict[str, str] = {}
    for name, keys in values.items():
        if name not in known:
            raise SvmError(f"keys: {describe_unknown(str(name), known)}")
        # YAML reads a digit as a number.
        keymap[name] = _checked(name, str(keys) if isinstance(keys, int) and not isinstance(keys, bool) else keys)
    owners: dict[str, str] = {}
    for binding in remap(bindings, keymap):
        for key in binding.key.split(","):
            if owners.setdefault(key, str(binding.id)) != binding.id:
                raise SvmError(f"keys: {key!r} is for both {owners[key]!r} and {binding.id!r}; give one another key.")
    return keymap


def remap(bindings: Sequence[BindingType], keymap: Keymap) -> list[Binding]:
    """Return `bindings` with the keys of `keymap`."""
    found = (binding for binding in bindings if isinstance(binding, Binding))
    return [b.with_key(_normal(keymap[b.id])) if b.id and b.id in keymap else b for b in found]


def _checked(name: str, keys: object) -> str:
    if not isinstance(keys, str) or not all(_exists(key) for key in _normal(keys).split(",")):
        raise SvmError(f"keys: {name} is {shown(keys)}; it must be a key such as x, space, f5 or ctrl+k.")
    return _normal(keys)


def _normal(keys: str) -> str:
    """Return `keys` under Textual's names: ``?`` is ``question_mark``."""
    return ",".join(_long_name(key.strip()) for key in keys.split(","))


def _long_name(key: str) -> str:
    (binding,) = Binding.make_bindings([Binding(key, "")]) if len(key) == 1 else [Binding(key, "")]
    return binding.key


def _exists(key: str) -> bool:
    *modifiers, name = key.split("+")
    return bool(name) and set(modifiers) <= MODIFIERS and (len(name) == 1 or name in NAMES or _is_character(name))


def _is_character(name: str) -> bool:
    try:
        unicodedata.lookup(name.replace("_", " "))
    except KeyError:
        return False
    return True


def key_label(key: str) -> str:
    """Return how a key is shown."""
    *modifiers, name = key.split("+")
    return "+".join([*modifiers, KEYS.get(name, name)])
