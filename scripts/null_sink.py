"""A sound device that nobody hears, for benchmarks: PulseAudio with a null sink, whose monitor can be recorded."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from streaming_vlm_mlx.audio.clip_track import RATE
from streaming_vlm_mlx.errors import SvmError

NEEDED = ("pulseaudio", "parec")


@contextlib.contextmanager
def null_sink(folder: Path) -> Iterator[int]:
    """Run a PulseAudio with a null sink, the default device of this process and of its children; yield its process.

    Raises:
        SvmError: a program is missing.
    """
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        raise SvmError(f"{missing[0]} is missing; install pulseaudio and pulseaudio-utils.")
    socket, config = folder / "native", folder / "asound.conf"
    config.write_text("</usr/share/alsa/alsa.conf>\npcm.!default { type pulse }\nctl.!default { type pulse }\n")
    os.environ |= {
        "XDG_RUNTIME_DIR": str(folder),
        "PULSE_SERVER": f"unix:{socket}",
        "PULSE_COOKIE": str(folder / "cookie"),
        "ALSA_CONFIG_PATH": str(config),
    }
    modules = (
        f"module-native-protocol-unix socket={socket} auth-anonymous=1",
        f"module-null-sink sink_name=svm rate={RATE}",
    )
    settings = ("--high-priority=no", "--realtime=no", "--exit-idle-time=-1", "-n")
    command = ["pulseaudio", "--daemonize=no", *settings, *(f"--load={each}" for each in modules)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            while not socket.exists():
                if server.poll() is not None:
                    raise SvmError("pulseaudio ended at once; run it by hand to see why.")
                time.sleep(0.05)
            yield server.pid
        finally:
            server.terminate()
