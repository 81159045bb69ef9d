"""NIST sphere files, as the discs of WSJ0 and TIMIT hold them.

libsndfile reads them unless they are shorten-compressed, as most of WSJ0 is. Those are decoded by the Python
package desphere or by the program sph2pipe, whichever is installed.
"""

import shutil
import subprocess
from pathlib import Path

MAGIC = b"NIST_1A"
_SECONDS = 120.0  # that decoding one file may take


def header(path: Path) -> dict[str, str]:
    """Fields of a sphere file's header; empty where it is none. `header_bytes` is the length of the header."""
    with open(path, "rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            return {}
        size = stream.read(9).strip()
        if not size.isdigit():
            return {}
        stream.seek(0)
        text = stream.read(int(size)).decode("latin-1")
    fields = {"header_bytes": size.decode()}
    for line in text.splitlines()[2:]:
        if line.strip() == "end_head":
            break
        name, _, rest = line.partition(" ")
        fields[name] = rest.partition(" ")[2].strip()
    return fields


def is_compressed(fields: dict[str, str]) -> bool:
    """Whether the samples are shorten-compressed."""
    return "shorten" in fields.get("sample_coding", "")


def missing_bytes(fields: dict[str, str], size: int) -> int:
    """How many bytes of audio a file of `size` bytes lacks by its header; 0 where that cannot be told."""
    names = ("header_bytes", "sample_count", "channel_count", "sample_n_bytes")
    if is_compressed(fields) or not all(fields.get(name, "").isdigit() for name in names):
        return 0
    start, count, channels, width = (int(fields[name]) for name in names)
    return max(0, start + count * channels * width - size)


def decoded(path: Path) -> bytes:
    """A shorten-compressed sphere file as a WAV file, in memory. ValueError: no decoder, or damaged."""
    try:
        import desphere
    except ImportError:
        return _by_program(path)
    try:
        return desphere.transcode_bytes(path.read_bytes())
    except (desphere.DesphereError, ValueError, IndexError, EOFError) as error:
        raise ValueError(f"its shorten compression is damaged ({error})") from None


def _by_program(path: Path) -> bytes:
    program = shutil.which("sph2pipe")
    if program is None:
        raise ValueError(
            "shorten-compressed; install the Python package desphere or the program sph2pipe to read it"
        )
    command = [program, "-p", "-f", "wav", str(path.absolute())]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"sph2pipe cannot decode it ({type(error).__name__})") from None
    if done.returncode or not done.stdout:
        told = " ".join(done.stderr.decode("utf-8", "replace").split())[:200]
        raise ValueError(f"sph2pipe cannot decode it ({told or f'exit code {done.returncode}'})")
    return done.stdout
