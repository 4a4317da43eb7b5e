"""Opens what a viewer names (a file, a URL, a camera) with PyAV, and says plainly when it cannot."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from streaming_vlm_mlx.errors import SvmError

# Input devices of FFmpeg that are named `device:what`, as `avfoundation:0`.
DEVICES = ("avfoundation", "dshow", "v4l2", "lavfi")

# Seconds that a URL may stay silent before it is given up.
PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class InputVideo:
    """An open container and its video stream."""

    container: InputContainer
    stream: VideoStream


def open_video_stream(name: str) -> InputVideo:
    """Open `name`: a path, a URL (``https://``, ``rtsp://``), ``/dev/video0`` or a device as ``avfoundation:0``.

    Raises:
        SvmError: it is absent, damaged, no video, or cannot be reached.
    """
    where, options = _address(name)
    try:
        # Titles in an old encoding are no reason to refuse a clip.
        container = av.open(where, metadata_errors="replace", **options)
    except av.error.FFmpegError as error:
        raise SvmError(_complaint(name, error)) from error
    stream = _video_stream(container)
    if stream is None or stream.codec_context is None:
        complaint = _streamless(name, container, stream)
        container.close()
        raise SvmError(complaint)
    return InputVideo(container, stream)


def is_file(name: str) -> bool:
    """Tell whether `name` is a regular file, so that it can be opened twice and has an end."""
    return "://" not in name and Path(name).is_file()


def _address(name: str) -> tuple[str, dict[str, Any]]:
    if "://" in name:
        return name, {"timeout": PATIENCE}
    if name.startswith("/dev/video"):
        return name, {"format": "v4l2"}
    device, _, what = name.partition(":")
    if device in DEVICES and not Path(name).exists():
        _check_device(name, device)
        # macOS cameras refuse FFmpeg's default of 29.97 frames a second.
        options = {"framerate": "30"} if device == "avfoundation" else {}
        return what, {"format": device, "options": options}
    _check_path(name)
    # The prefix keeps FFmpeg from taking a colon in a file's name for a protocol.
    return f"file:{os.path.abspath(name)}", {}  # noqa: PTH100 - Path.absolute leaves dots, and a name stays a name


def _check_device(name: str, device: str) -> None:
    try:
        av.ContainerFormat(device, "r")
    except ValueError as error:
        raise SvmError(f"{name} cannot be opened: FFmpeg has no {device} devices on this machine.") from error


def _check_path(name: str) -> None:
    path = Path(name)
    if path.is_dir():
        raise SvmError(f"{name} is a folder; name a video file in it.")
    if not path.exists():
        raise SvmError(f"{name} does not exist; check the path.")
    if path.is_file() and path.stat().st_size == 0:
        raise SvmError(f"{name} is empty (0 bytes); copy or download it again.")


def _complaint(name: str, error: av.error.FFmpegError) -> str:
    if not isinstance(error, av.error.InvalidDataError | av.error.EOFError) or not is_file(name):
        return f"{name} cannot be opened: {error.strerror}. Check the address and that you may read it."
    with Path(name).open("rb") as file:
        head = file.read(8)
    if head[4:] == b"ftyp":
        return f"{name} was cut short before its index (moov) was written; copy, download or record it again."
    return f"{name} is not a video that FFmpeg can read; choose a video file, or convert it to MP4."


def _video_stream(container: InputContainer) -> VideoStream | None:
    # FFmpeg draws text files as pictures of a terminal, and shows the cover of a song as a video.
    if container.format.name == "tty":
        return None
    cover = av.stream.Disposition.attached_pic
    return next((s for s in container.streams.video if not s.disposition & cover), None)


def _streamless(name: str, container: InputContainer, stream: VideoStream | None) -> str:
    if stream is not None:
        return f"{name} holds video that this build of FFmpeg cannot decode; convert it to H.264 in MP4."
    if container.streams.audio:
        return f"{name} holds sound but no video; choose a file with a picture."
    return f"{name} is not a video; choose a video file."
