"""What is replaced is there whole or not at all, whatever breaks off."""

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from streaming_vlm_mlx.atomic import replacing, replacing_folder, write_text
from streaming_vlm_mlx.errors import SvmError

BREAKS = [ValueError("a defect"), OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
TOLD = (SvmError, ValueError, KeyboardInterrupt)

STUCK = """
import sys
from pathlib import Path
from streaming_vlm_mlx.atomic import {method}
with {method}(Path(sys.argv[1])) as part:
    (part / "new" if part.is_dir() else part).write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@contextmanager
def usual_mask() -> Iterator[None]:
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def fail_in(block: AbstractContextManager[Path], error: BaseException) -> None:
    with block as part:
        (part / "half" if part.is_dir() else part).write_text("half", encoding="utf-8")
        raise error


def test_text_is_written_below_folders_that_were_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    with usual_mask():
        write_text(path, "ça\n")
    assert path.read_bytes() == "ça\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(path.parent) == ["b.txt"]


@pytest.mark.parametrize("error", BREAKS, ids=repr)
def test_a_file_stays_as_it_was_when_writing_fails(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "kept.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(TOLD):
        fail_in(replacing(path), error)
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["kept.txt"]


@pytest.mark.parametrize("error", BREAKS, ids=repr)
def test_a_folder_stays_as_it_was_when_writing_fails(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "kept"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(TOLD):
        fail_in(replacing_folder(path), error)
    assert names(path) == ["old"]
    assert names(tmp_path) == ["kept"]


def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    for block in (replacing(tmp_path / "out"), replacing_folder(tmp_path / "run")):
        with pytest.raises(SvmError, match=r"cannot be written: No space left on device\.$"):
            fail_in(block, OSError(errno.ENOSPC, "No space left on device"))


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "run"
    for content in ("first", "second"):
        with usual_mask(), replacing_folder(path) as part:
            (part / content).touch()
    assert names(path) == ["second"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert names(tmp_path) == ["run"]


def test_the_old_folder_comes_back_when_the_new_one_can_not_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / "old").touch()
    rename = Path.rename

    def refuse_new(self: Path, target: Path) -> Path:
        if target == path and not self.name.endswith(".old"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_new)
    with pytest.raises(SvmError, match="Input/output error"), replacing_folder(path):
        pass
    assert names(path) == ["old"]
    assert names(tmp_path) == ["run"]


def test_a_linked_folder_is_replaced_behind_its_link(tmp_path: Path) -> None:
    target, link = tmp_path / "run-1", tmp_path / "latest"
    target.mkdir()
    link.symlink_to(target)
    with replacing_folder(link) as part:
        (part / "new").touch()
    assert link.is_symlink()
    assert names(target) == ["new"]
    assert names(tmp_path) == ["latest", "run-1"]


def test_what_is_of_the_other_kind_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SvmError, match="file is a file"), replacing_folder(tmp_path / "file"):
        pass
    for name in ("folder", "pipe"):
        with pytest.raises(SvmError, match=f"{name} is no regular file"):
            write_text(tmp_path / name, "text")
    assert names(tmp_path) == ["file", "folder", "pipe"]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SvmError, match="cannot be written"):
        write_text(tmp_path / "file" / "out.txt", "text")
    with pytest.raises(SvmError, match="cannot be written"), replacing_folder(tmp_path / "file" / "run"):
        pass


@pytest.mark.parametrize("method", ["replacing", "replacing_folder"])
def test_a_killed_process_leaves_the_old_in_place(tmp_path: Path, method: str) -> None:
    path = tmp_path / "kept"
    old = path / "old" if method == "replacing_folder" else path
    old.parent.mkdir(exist_ok=True)
    old.write_text("whole", encoding="utf-8")
    command = [sys.executable, "-c", STUCK.format(method=method), str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"writing\n"
        child.send_signal(signal.SIGKILL)
    assert old.read_text(encoding="utf-8") == "whole"
