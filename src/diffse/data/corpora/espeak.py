"""Speech synthesis with espeak-ng, whose library and data the package espeakng-loader carries.

espeak-ng is under the GPL; it runs as a separate program and only the samples come back.
"""

import importlib.util
import json
import struct
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from diffse.errors import DiffseError

_PROGRAM = Path(__file__).with_name("espeak_process.py")
_SECONDS = 300  # a voice takes well under one second; more means that it hangs


@dataclass(frozen=True)
class Line:
    """One utterance: text and how it is spoken."""

    text: str
    seed: int  # of espeak's noise, 31 bits
    pitch: int = 50  # 0 to 99, around the voice's own
    range: int = 50  # of the intonation, 0 to 99
    speed: int = 165  # words per minute


def require() -> None:
    """DiffseError when the package that carries espeak-ng is not installed."""
    if importlib.util.find_spec("espeakng_loader") is None:
        raise DiffseError("the demo corpus needs espeak-ng: run pip install 'diffse[demo]'")


def speak(voice: str, lines: list[Line]) -> tuple[list[np.ndarray], int]:
    """Speak `lines` with an espeak-ng voice, such as "en-us+f2", in a process of their own.

    Returns (waves float32 [samples] with full scale at 1.0, rate in Hz). The same lines in the same order
    give the same samples. DiffseError when espeak-ng is missing, fails or crashes.
    """
    require()
    import espeakng_loader

    request = {
        "library": str(espeakng_loader.get_library_path()),
        "data": str(espeakng_loader.get_data_path()),
        "voice": voice,
        "lines": [asdict(line) for line in lines],
    }
    command = [sys.executable, "-I", "-S", str(_PROGRAM)]
    try:
        done = subprocess.run(
            command, input=json.dumps(request).encode(), capture_output=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise DiffseError(f"espeak-ng did not finish the voice '{voice}' in {_SECONDS} s") from None
    if done.returncode != 0:
        lines_of_error = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines_of_error[-1] if lines_of_error else f"it crashed (status {done.returncode})"
        raise DiffseError(f"speech synthesis failed for the voice '{voice}': {reason}")
    return _unpack(done.stdout, len(lines))


def _unpack(data: bytes, count: int) -> tuple[list[np.ndarray], int]:
    (rate,) = struct.unpack_from("<I", data)
    waves, start = [], 4
    for _ in range(count):
        (samples,) = struct.unpack_from("<I", data, start)
        wave = np.frombuffer(data, "<i2", samples, start + 4)
        waves.append(wave.astype(np.float32) / np.float32(1 << 15))
        start += 4 + 2 * samples
    return waves, rate
