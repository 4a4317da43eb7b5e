"""A program that speaks as `--voice-command` expects: a beep a word, and failures on demand."""

import shlex
import sys
from pathlib import Path

# A beep of 3 kHz is heard apart from the tones of clips. It is short of its word's time, as speech has gaps.
PITCH, WORD_SECONDS, BEEP_SECONDS = 3000, 0.25, 0.2

PROGRAM = f"""
import array, math, sys, time, wave
options = dict(word.split("=", 1) for word in sys.argv[1:])
if "started" in options:
    open(options["started"], "a").write("started\\n")
if options.get("fail") == "at once":
    sys.exit("no model")
text = sys.stdin.read()
if "heard" in options:
    open(options["heard"], "a").write(text)
if options.get("fail") == "hang":
    time.sleep(600)
if options.get("fail") == "noise":
    sys.stdout.write("this is no sound")
    sys.exit()
if options.get("fail") == "once" and not __import__("os").path.exists(options["flag"]):
    open(options["flag"], "w").close()
    sys.exit("out of memory")
rate, samples = 16000, array.array("h")
for _ in text.split():
    beep = int({BEEP_SECONDS} * rate)
    samples.extend(int(16000 * math.sin(2 * math.pi * {PITCH} * n / rate)) for n in range(beep))
    samples.extend([0] * (int({WORD_SECONDS} * rate) - beep))
import io
made = io.BytesIO()
with wave.open(made, "wb") as sound:
    sound.setnchannels(1), sound.setsampwidth(2), sound.setframerate(rate)
    sound.writeframes(samples.tobytes())
if "out" in options:
    open(options["out"], "wb").write(made.getvalue())
else:
    sys.stdout.buffer.write(made.getvalue())
"""


def voice_command(folder: Path, **options: object) -> str:
    """Return the command line of the program, which is written to `folder`.

    Args:
        folder: for the program.
        **options: ``heard=F`` appends each text to a file, ``started=F`` a line for each start, ``out=F`` writes the
            WAV to a file; ``fail`` is ``hang``, ``noise``, ``at once``, or ``once`` with a file as ``flag``.
    """
    program = folder / "voice.py"
    program.write_text(PROGRAM)
    return shlex.join(
        [sys.executable, "-S", "-E", str(program), *(f"{name}={value}" for name, value in options.items())]
    )
