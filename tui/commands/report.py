"""``svm-tui report``: write a page on how a model's commentary on a clip compares with the truth, and what it costs."""

import argparse
import contextlib
import datetime
import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from streaming_vlm_mlx.background import run_coroutine
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.shipped import SAMPLE, notice
from tui.commands import infer, validate
from tui.commands.bench import describe_machine
from tui.commands.options import add_model_arguments, checked_clip, make_engine, resolve_settings, run_as_follower
from tui.commands.play import add_truth_argument, read_clip_truth
from tui.commands.replay import find_clip
from tui.messages import PROGRAM, note
from tui.session_paths import check_writable, new_record

if TYPE_CHECKING:
    from streaming_vlm_mlx.config import StreamConfig
    from streaming_vlm_mlx.eval.runner import PendingCase, ValidationCase
    from streaming_vlm_mlx.eval.text_metrics import Word
    from streaming_vlm_mlx.report.figures import Stretch
    from streaming_vlm_mlx.sessions.record import SessionRecord
    from streaming_vlm_mlx.stream.async_engine import Engine

HELP = (
    "Run a model on a clip and write one HTML page, and its JSON beside it: pictures, commentary beside the true "
    "transcript with the differences marked, scores, time, memory and settings. Saved sessions are compared without a "
    "model."
)
# Pictures of a clip, and of each of several stretches.
PICTURES, PICTURES_OF_EACH = 12, 4
# Seconds between two pictures, at least.
PICTURE_STEP = 2.0

# What a log of a session calls Ctrl-C and SIGTERM, and what a reader of the page does.
STOPPED = {"KeyboardInterrupt": "it was stopped.", "Terminated": "it was stopped."}
RECORDS = ".jsonl"
MODEL_OPTIONS = ("ckpt", "adapter", "query", "previous", "fps", "config", "kv_bits", "drop_still", "seed")

Tell = Callable[[str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "inputs",
        metavar="CLIP",
        nargs="*",
        help="a video file, URL or camera; records (.jsonl); or sessions of one clip (.json, or journals .jsonl) to "
        "show beside each other (default: a sample)",
    )
    parser.add_argument("--matches", type=int, metavar="N", help="use N simulated matches instead of a clip")
    add_truth_argument(parser)
    parser.add_argument(
        "--out", type=Path, metavar="F", required=True, help="page to write: .html; its JSON goes beside"
    )
    parser.add_argument("--force", action="store_true", help="let --out replace any file, not only an earlier report")
    parser.add_argument(
        "--at", type=float, nargs="+", metavar="S", help="seconds of the clip to show pictures of (default: evenly)"
    )
    parser.add_argument(
        "--clip",
        type=checked_clip,
        metavar="F",
        help="the sessions' clip (default: the path in them, else beside them)",
    )
    parser.add_argument("--start", type=float, metavar="S", help="second to start at (default: 0)")
    parser.add_argument("--duration", type=float, metavar="S", help="seconds to watch (default: to the end)")
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the report; what was finished is kept however the run ends."""
    from streaming_vlm_mlx.report.page import check_replaceable, json_path

    files = [Path(name) for name in args.inputs if "://" not in name]
    inputs = [*files, *([args.truth] if args.truth else []), *([Path(args.clip)] if args.clip else [])]
    for path in (args.out, json_path(args.out)):
        check_writable(path, inputs)
    check_replaceable(args.out, args.force)
    if args.matches is not None and args.inputs:
        raise SvmError(f"--matches stands for a clip; leave out {args.inputs[0]}, or --matches.")
    if args.matches is not None:
        return _report_cases(args, *validate.open_matches(range(validate.FIRST, validate.FIRST + args.matches)))
    sessions = [path for path in files if _is_session(path)]
    if sessions and len(sessions) == len(args.inputs):
        return _report_sessions(args, sessions)
    if files and all(path.suffix == RECORDS for path in files):
        return _report_cases(args, *validate.open_records(files))
    if len(args.inputs) > 1:
        raise SvmError(f"{args.inputs[1]}: a report is on one clip, on records, or on sessions of one clip (.json).")
    return _report_clip(args)


def _is_session(path: Path) -> bool:
    """Return whether `path` is a saved session, a journal, or the JSON of a report."""
    from streaming_vlm_mlx.sessions.journal import is_journal

    return path.suffix.lower() == ".json" or (path.suffix == RECORDS and is_journal(path))


def _refuse(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Refuse the options `names` of `args`.

    Raises:
        SvmError: one of them is set; the message ends with `why`.
    """
    for name in names:
        if getattr(args, name) is not None:
            raise SvmError(f"--{name.replace('_', '-')} has no effect here: {why}.")


def _report_clip(args: argparse.Namespace) -> int:
    from streaming_vlm_mlx.backend import prepare
    from streaming_vlm_mlx.hub_cache import checkpoint_name
    from streaming_vlm_mlx.memory import machine_memory
    from streaming_vlm_mlx.report.pictures import check_times
    from streaming_vlm_mlx.text.chat_template import STYLES
    from streaming_vlm_mlx.video.video_file import open_video

    _refuse(args, ["clip"], "it names the clip of saved sessions")
    clip = args.inputs[0] if args.inputs else str(SAMPLE)
    args = infer.fill_in(argparse.Namespace(**{**vars(args), "clip": clip}))
    config, folder = resolve_settings(args)
    if run_as_follower(folder, config):
        return 0
    notes = _Notes()
    with infer.closing(open_video(clip, config.fps, STYLES[config.style].takes_ending_frames)) as source:
        last = math.inf if source.duration is None else source.duration
        check_times(args.at or (), args.start, min(last, args.start + (args.duration or math.inf)))
        words = read_words(args.truth, clip, source.duration, notes.tell)
        engine, name = make_engine(folder, config, notes.tell, args.adapter)
        advice = notice(folder, [clip], machine_memory())
        notes.add(advice)

        def write(path: Path, record: "SessionRecord") -> None:
            title = clip_title(clip)
            stretch = _with_pictures(args, _stretch(title, words, [record]), clip, PICTURES, notes)
            _write(path, args, title, [checkpoint_name(folder)], [stretch], notes)

        try:
            record = new_record(clip, name, config, describe_machine(prepare()))
            with infer.saved(infer.make_log(args.out, record, write)) as log:
                run_coroutine(infer.comment(engine, source, args, log, advice, lambda _: None))
        finally:
            engine.close()
    if not log.record.seconds:
        raise SvmError(f"{clip}: the model finished no second of it; check --start and --duration.")
    return 0


def _report_sessions(args: argparse.Namespace, files: Sequence[Path]) -> int:
    from streaming_vlm_mlx.report.pictures import check_times

    _refuse(args, (*MODEL_OPTIONS, "start", "duration"), "saved sessions are shown as they are, without a model")
    found = [(path, session, words) for path in files for session, words in load_sessions(path)]
    columns = _different([path.stem for path, _, _ in found])
    path, first, _ = found[0]
    for other, session, _ in found:
        if not session.seconds:
            raise SvmError(f"{other} has no commentary; choose another session.")
        if clip_title(session.clip) != clip_title(first.clip) and not args.clip:
            raise SvmError(
                f"{path} is on {clip_title(first.clip)}, {other} on {clip_title(session.clip)}; "
                "give sessions of one clip, or name it with --clip."
            )
    notes = _Notes()
    sessions = [session for _, session, _ in found]
    clip = find_clip(first, path, args.clip)
    if clip is None and args.clip:
        raise SvmError(f"{args.clip} does not exist; check the path.")
    if clip is None:
        notes.tell(f"the clip {clip_title(first.clip)} is not there, so there are no pictures; name it with --clip.")
    words = read_words(args.truth, clip or first.clip, None, notes.tell) or next((w for _, _, w in found if w), ())
    title = clip_title(args.clip or first.clip)
    stretch = _stretch(title, words, sessions)
    check_times(args.at or (), stretch.start, stretch.end)
    if clip is not None:
        stretch = _with_pictures(args, stretch, clip, PICTURES, notes)
    _write(args.out, args, title, columns, [stretch], notes)
    note(f"{args.out} written.")
    return 0


def _different(names: Sequence[str]) -> list[str]:
    """Return `names`, with a number behind each that comes several times."""
    return [
        f"{name} ({names[: at + 1].count(name)})" if names.count(name) > 1 else name for at, name in enumerate(names)
    ]


def load_sessions(path: Path) -> "list[tuple[SessionRecord, tuple[Word, ...]]]":
    """Return the session in `path`, or those in the JSON of a report, each with the reference that the file holds.

    Raises:
        SvmError: the file cannot be read, or holds no session.
    """
    from streaming_vlm_mlx.report.page import is_report_json, read_report
    from streaming_vlm_mlx.sessions.journal import load_session

    return read_report(path) if is_report_json(path) else [(load_session(path), ())]


def _report_cases(
    args: argparse.Namespace, total: int, opened: "contextlib.AbstractContextManager[Iterator[PendingCase]]"
) -> int:
    from streaming_vlm_mlx.hub_cache import checkpoint_name

    _refuse(args, ("truth", "clip", "start", "duration", "at"), "records and matches have their own")
    config, folder = resolve_settings(args)
    if run_as_follower(folder, config):
        return 0
    notes = _Notes()
    engine, name = make_engine(folder, config, notes.tell, args.adapter)
    warn = validate.warn_of_other_clips(folder, notes.tell)
    stretches: list[Stretch] = []
    failed: dict[str, str] = {}

    def measure(pending: "PendingCase", progress: validate.OnProgress) -> None:
        case = pending.load()
        warn(case)
        stretch = _case_stretch(engine, config, name, pending.name, case, progress)
        stretches.append(_with_pictures(args, stretch, case.clip, PICTURES_OF_EACH, notes))

    try:
        with validate.case_progress(total) as progress, opened as cases:
            validate.measure_each(engine, cases, measure, failed, progress, notes.tell)
    finally:
        engine.close()
        if stretches:
            if len(stretches) + len(failed) < total:
                notes.add(f"The run was stopped after {len(stretches)} of {total} stretches.")
            title = "Simulated matches" if args.matches else ", ".join(Path(name).name for name in args.inputs)
            _write(args.out, args, title, [checkpoint_name(folder)], stretches, notes)
            note(f"{args.out} written.")
    if not stretches:
        raise SvmError(f"none of {total} cases could be measured; the first: {next(iter(failed.values()))}")
    return 0


def _case_stretch(
    engine: "Engine",
    config: "StreamConfig",
    model: str,
    name: str,
    case: "ValidationCase",
    progress: validate.OnProgress,
) -> "Stretch":
    """Run the model on a case, and return its stretch."""
    from streaming_vlm_mlx.backend import prepare
    from streaming_vlm_mlx.eval.runner import run_case

    record = new_record(case.clip, model, config.merged(case.settings), describe_machine(prepare()))
    found = run_case(engine, config, case, validate.report_parts(case, lambda part: progress(part, name)))
    # The folder of a file of records says nothing to a reader of the page.
    short = name.rpartition("/")[2]
    return replace(_stretch(short, case.words, [replace(record, seconds=found.seconds)]), judged=found.judged)


class _Notes:
    """What the reader of the page has to know; each is told to the user too.

    Attributes:
        lines: the notes so far.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, text: str) -> None:
        """Add `text`, unless it is empty or known."""
        line = text[:1].upper() + text[1:]
        if line and line not in self.lines:
            self.lines.append(line)

    def tell(self, text: str) -> None:
        """Add `text` and print it on stderr."""
        self.add(text)
        note(text)


def clip_title(clip: str) -> str:
    """Return what a page calls `clip`: its file's name, or its address without user and query."""
    from streaming_vlm_mlx.report.tables import without_secrets

    return without_secrets(clip) if "://" in clip else Path(clip).name or clip


def read_words(named: Path | None, clip: str, duration: float | None, tell: Tell) -> "tuple[Word, ...]":
    """Return the reference words of `clip`: from the file `named`, else from the transcript beside it, else none.

    Raises:
        SvmError: the file cannot be read.
    """
    from streaming_vlm_mlx.eval.text_metrics import Word

    return tuple(Word(start, end, text) for start, end, text in read_clip_truth(named, clip, duration, tell))


def _stretch(name: str, words: "Sequence[Word]", sessions: "Sequence[SessionRecord]") -> "Stretch":
    from streaming_vlm_mlx.report.figures import stretch_of

    return stretch_of(name, words, sessions)


def _with_pictures(args: argparse.Namespace, stretch: "Stretch", clip: str, most: int, notes: _Notes) -> "Stretch":
    """Return `stretch` with the pictures of --at, else with at most `most`; without any where the clip has none."""
    from streaming_vlm_mlx.report.pictures import spread_times, take_pictures

    fitting = max(min(most, int((stretch.end - stretch.start) / PICTURE_STEP)), 1)
    chosen = [time for time in args.at or () if stretch.start <= time < stretch.end]
    times = chosen or spread_times(stretch.start, stretch.end, fitting)
    try:
        pictures = take_pictures(clip, times)
    except SvmError as error:
        notes.tell(f"There are no pictures: {error}")
        return stretch
    if not pictures:
        notes.add("There are no pictures: they can be taken of files only.")
    return replace(stretch, pictures=pictures)


def _write(
    path: Path,
    args: argparse.Namespace,
    title: str,
    columns: "Sequence[str]",
    stretches: "Sequence[Stretch]",
    notes: _Notes,
) -> None:
    """Write the page and its JSON.

    Raises:
        SvmError: a file cannot be written.
    """
    from streaming_vlm_mlx.report.figures import Contents
    from streaming_vlm_mlx.report.page import write_report
    from streaming_vlm_mlx.report.tables import without_secrets

    failures = {session.failure for stretch in stretches for session in stretch.sessions if session.failure}
    ended = [f"A session ended early: {STOPPED.get(failure, failure)}" for failure in sorted(failures)]
    command = shlex.join([PROGRAM, *map(without_secrets, args.words)])
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    contents = Contents(title, tuple(columns), tuple(stretches), created, command, (*notes.lines, *ended))
    note(f"{write_report(path, contents)} written.")
