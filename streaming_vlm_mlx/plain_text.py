"""Text from models, files and file names, made safe for a terminal, a subtitle file and JSON.

A terminal acts on control characters, and text with bidirectional overrides (UAX #9) reads other than it is.
"""

import re

# Control characters (C0, DEL, C1), bidirectional controls, line separators, and surrogates, which UTF-8 lacks.
_UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE_CHAR = re.compile(f"[{_UNSAFE}]")
# In JSON, a line feed is only between the values.
_UNSAFE_IN_JSON = re.compile(f"(?!\n)[{_UNSAFE}]")


def visible(text: object) -> str:
    r"""Return `text` as one line for a message, its unsafe characters as escapes: ``\x1b``, ``\u202e``."""
    return _UNSAFE_CHAR.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


def harmless(text: str) -> str:
    """Return `text` without unsafe characters, empty lines, and white space at its lines' ends.

    A tab becomes a space; a lone surrogate, which no file can hold, becomes U+FFFD.
    """
    lines = (_UNSAFE_CHAR.sub(_replacement, line).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def _replacement(found: re.Match[str]) -> str:
    char = found[0]
    if char == "\t":
        return " "
    return "\ufffd" if "\ud800" <= char <= "\udfff" else ""


def safe_json(text: str) -> str:
    """Return the JSON `text` with unsafe characters as JSON's own escapes; its values stay the same."""
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
