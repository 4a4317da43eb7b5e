"""A report as one self-contained HTML page and as JSON."""

import base64
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.data.json_fields import is_seconds
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.eval.report import QUANTILES
from streaming_vlm_mlx.eval.text_metrics import Word
from streaming_vlm_mlx.input_files import parse_json, read_file
from streaming_vlm_mlx.plain_text import harmless, safe_json, visible
from streaming_vlm_mlx.report.figures import (
    Contents,
    Marks,
    Stretch,
    column_figures,
    mark,
    reference_figures,
    second_words,
)
from streaming_vlm_mlx.report.pictures import Picture
from streaming_vlm_mlx.report.plots import session_plots
from streaming_vlm_mlx.report.tables import (
    CASE_HEADS,
    case_rows,
    clock,
    fact_rows,
    facts,
    figure_rows,
    flat,
    latency_rows,
    size_rows,
    tiles,
    without_secrets,
)
from streaming_vlm_mlx.sessions.record import LARGEST_SESSION, SessionRecord
from streaming_vlm_mlx.sessions.subtitles import REPORT

VERSION = 1
GENERATOR = f'<meta name="generator" content="{REPORT}">'
# Bytes at the head of a page that hold the generator.
_HEAD = 4096
SUFFIXES = (".html", ".htm")
# Stretches that are shown second by second; all are in the table and in the JSON.
MOST_SHOWN = 50


def write_report(path: Path, contents: Contents) -> Path:
    """Write the page to `path` and the JSON beside it, each atomically; return the path of the JSON.

    Raises:
        SvmError: a file cannot be written.
    """
    beside = json_path(path)
    write_text(beside, render_json(contents))
    write_text(path, render_page(contents))
    return beside


def json_path(path: Path) -> Path:
    """Return the path of the JSON of the page `path`.

    Raises:
        SvmError: the ending of `path` is not that of a page.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise SvmError(f"{path} is no name of a page; end it with .html.")
    return path.with_suffix(".json")


def check_replaceable(path: Path, force: bool = False) -> None:
    """Refuse to replace a page or a JSON that is not an earlier report, unless `force` is set or it is empty.

    Raises:
        SvmError: names the file, and how to replace it anyway.
    """
    for each in (path, json_path(path)):
        if not force and each.is_file() and each.stat().st_size and not _is_report(each):
            raise SvmError(
                f"{each} exists and is not an earlier report; choose another name, or replace it with --force."
            )


def _is_report(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD).decode("utf-8", "replace")
    except OSError:
        return False
    return GENERATOR in head or f'"kind": "{REPORT}"' in head


def render_json(contents: Contents) -> str:
    """Return all of the report but the pictures as JSON, ending with a line feed."""
    stretches = contents.stretches
    values = {
        "kind": REPORT,
        "version": VERSION,
        "title": contents.title,
        "created": contents.created,
        "command": contents.command,
        "notes": list(contents.notes),
        "figures": {name: column_figures(stretches, column) for column, name in enumerate(contents.columns)},
        "reference": reference_figures(stretches),
        "stretches": [_stretch_values(stretch, contents.columns) for stretch in stretches],
    }
    return safe_json(json.dumps(values, ensure_ascii=False, indent=1)) + "\n"


def _stretch_values(stretch: Stretch, columns: Sequence[str]) -> dict[str, Any]:
    return {
        "name": stretch.name,
        "start": stretch.start,
        "end": stretch.end,
        "figures": {name: column_figures([stretch], column) for column, name in enumerate(columns)},
        "reference": [[word.start, word.end, word.text] for word in stretch.reference],
        "pictures": [picture.time for picture in stretch.pictures],
        "sessions": [replace(each, clip=without_secrets(each.clip)).to_dict() for each in stretch.sessions],
    }


def read_report(path: Path) -> list[tuple[SessionRecord, tuple[Word, ...]]]:
    """Return the sessions in the JSON of a report on a single stretch, each with the reference.

    Raises:
        SvmError: the file cannot be read, is not such a JSON, or its report is on several stretches.
    """
    try:
        values = parse_json(read_file(path, LARGEST_SESSION).decode("utf-8"))
    except ValueError as error:
        raise SvmError(f"{path} is not JSON ({error}); choose a file that svm-tui wrote.") from error
    match values:
        case {"version": int(version)} if version > VERSION:
            raise SvmError(f"{path} has format {version}, newer than this program's ({VERSION}); update svm-tui.")
        case {"stretches": [{"sessions": [_, *_] as sessions, "reference": list(words)}]}:
            told = tuple(filter(None, map(_word, words)))
        case {"stretches": [_, _, *_] as stretches}:
            raise SvmError(f"{path} is a report on {len(stretches)} stretches; choose one on a single clip.")
        case _:
            raise SvmError(f"{path} is not the JSON of a report; choose a file that svm-tui wrote.")
    try:
        return [(SessionRecord.from_dict(each if isinstance(each, dict) else {}), told) for each in sessions]
    except SvmError as error:
        raise SvmError(f"{path}: {error}") from error


def _word(values: object) -> Word | None:
    """Return the word that the JSON of a report holds as a list; None for anything else."""
    match values:
        case [start, end, str(text)] if is_seconds(start) and is_seconds(end):
            return Word(float(start), float(end), text)
    return None


def is_report_json(path: Path) -> bool:
    """Return whether the file `path` is the JSON of a report."""
    return path.suffix.lower() == ".json" and _is_report(path)


def render_page(contents: Contents) -> str:
    """Return the report as an HTML page that loads nothing, and in which all texts are escaped."""
    folder = Path(__file__).parent
    style = (folder / "page.css").read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_safe
    )
    environment.filters |= {"clock": clock, "moment": _moment}
    template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
    return template.render(
        contents=contents,
        generator=Markup(GENERATOR),
        style=Markup(style),
        digest=digest,
        many=len(contents.columns) > 1,
        **_view(contents),
    )


def _safe(value: Any) -> Any:
    """Return `value` with its control characters as visible escapes; Jinja escapes its markup afterwards."""
    return value if isinstance(value, Markup) else visible(value)


def _view(contents: Contents) -> dict[str, Any]:
    """Return what the template shows beside the contents."""
    stretches, columns = contents.stretches, contents.columns
    found = [column_figures(stretches, column) for column in range(len(columns))]
    reference = reference_figures(stretches)
    sessions = [stretches[0].sessions[column] for column in range(len(columns))]
    return {
        "tiles": tiles(found[0], reference) if len(columns) == 1 else [],
        "figures": list(figure_rows(found, reference)),
        "has_reference": bool(reference),
        "cases": list(case_rows(stretches)) if len(stretches) > 1 else [],
        "latency": list(latency_rows(found)),
        "quantiles": list(QUANTILES),
        "plots": session_plots(stretches, columns),
        "sizes": list(size_rows(found)),
        "shown": [_shown(stretch) for stretch in stretches[:MOST_SHOWN]],
        "case_heads": CASE_HEADS,
        "facts_rows": list(fact_rows([facts(session) for session in sessions])),
        "settings": list(fact_rows([dict(flat(session.settings)) for session in sessions])),
    }


@dataclass(frozen=True)
class Piece:
    """Words with the same mark: the CSS class, and the text."""

    style: str
    text: str


@dataclass(frozen=True)
class Row:
    """A second: its time, and the pieces of each column and of the reference."""

    time: int
    cells: tuple[tuple[Piece, ...], ...]
    reference: tuple[Piece, ...]


@dataclass(frozen=True)
class Scene:
    """The seconds from a picture to the next."""

    start: float
    picture: Picture | None
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class ShownStretch:
    """A stretch second by second."""

    name: str
    start: float
    end: float
    scenes: tuple[Scene, ...]


def _shown(stretch: Stretch) -> ShownStretch:
    marks = [mark(stretch, session) for session in stretch.sessions]
    is_compared = bool(stretch.compared_with)
    columns = [
        _session_cells(session, found, is_compared and (bool(stretch.reference) or number > 0))
        for number, (session, found) in enumerate(zip(stretch.sessions, marks, strict=True))
    ]
    told = _reference_cells(stretch, marks)
    times = sorted({*told, *itertools.chain.from_iterable(columns)})
    rows = [Row(time, tuple(cells.get(time, ()) for cells in columns), told.get(time, ())) for time in times]
    starts = [(picture.time, picture) for picture in stretch.pictures]
    heads: list[tuple[float, Picture | None]] = [*starts]
    if not heads or math.floor(heads[0][0]) > math.floor(stretch.start):
        heads.insert(0, (stretch.start, None))
    ends = [*(math.floor(time) for time, _ in heads[1:]), math.inf]
    scenes = tuple(
        Scene(time, picture, tuple(row for row in rows if math.floor(time) <= row.time < end))
        for (time, picture), end in zip(heads, ends, strict=True)
    )
    return ShownStretch(stretch.name, stretch.start, stretch.end, scenes)


def _session_cells(session: SessionRecord, found: Marks, is_marked: bool) -> dict[int, tuple[Piece, ...]]:
    """Return the pieces of a session by whole second; those that have none are absent."""
    cells: dict[int, list[Piece]] = {}
    place = 0
    for second in session.seconds:
        words = list(second_words(second.commentary, second))
        off = [is_marked and place + at in found.added for at in range(len(words))]
        place += len(words)
        pieces = [*_asked(second.query, second.answer)]
        pieces += _pieces([word.text for word in words], ["added" if each else "" for each in off])
        if pieces:
            cells.setdefault(math.floor(second.start + 1e-6), []).extend(pieces)
    for skipped in session.skipped:
        cells.setdefault(math.floor(skipped.start + 1e-6), []).append(Piece("skipped", "skipped"))
    return {time: tuple(pieces) for time, pieces in cells.items()}


def _asked(question: str, answer: str) -> Iterator[Piece]:
    if question:
        yield Piece("question", " ".join(harmless(question).split()))
    if answer:
        yield Piece("answer", " ".join(harmless(answer).split()))


def _reference_cells(stretch: Stretch, marks: Sequence[Marks]) -> dict[int, tuple[Piece, ...]]:
    """Return the pieces of the reference by whole second; a word is missed where no session that heard it says it."""
    by_time: dict[int, list[int]] = {}
    for place, word in enumerate(stretch.reference):
        by_time.setdefault(math.floor(word.start + 1e-6), []).append(place)
    cells = {}
    for time, places in by_time.items():
        styles = []
        for place in places:
            missed = [place in found.missed for found in marks if place in found.heard]
            styles.append("missed" if missed and all(missed) else "partly" if any(missed) else "")
        cells[time] = tuple(_pieces([stretch.reference[place].text for place in places], styles))
    return cells


def _pieces(words: Sequence[str], styles: Sequence[str]) -> Iterator[Piece]:
    for style, group in itertools.groupby(zip(styles, words, strict=True), key=lambda each: each[0]):
        yield Piece(style, " ".join(word for _, word in group))


def _moment(stamp: str) -> str:
    """Return an ISO 8601 time as the date and the minute."""
    return stamp.replace("T", " ")[:16]
