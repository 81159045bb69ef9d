"""What some metrics need beside the signals: weights and the user's programs, found before any scoring."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from diffse import storage
from diffse.errors import DiffseError
from diffse.metrics import weights
from diffse.metrics.checks import Missing
from diffse.settings import Evaluate, Polqa, Recogniser

NEEDS = {"nisqa": "nisqa", "squim": "squim", "wvmos": "wvmos"}  # metric -> its weights


@dataclass(frozen=True)
class Tools:
    """`weights`: name -> (file, SHA-256). `home`: the folder in which programs are started."""

    weights: dict[str, tuple[Path, str]] = field(default_factory=dict)
    recogniser: Recogniser = Recogniser()
    polqa: Polqa = Polqa()
    home: Path = Path()

    def file(self, name: str) -> Path:
        """The weights file `name`; Missing where there is none."""
        if name not in self.weights:
            raise Missing(f"no weights: give evaluate.weights.{name}")
        return self.weights[name][0]

    def version(self, metric: str) -> str:
        """Which weights or program `metric` uses, "" when none: 'weights 2c54586fea83'."""
        if metric == "polqa" and self.polqa.command:
            return f"program {self._program(self.polqa.command)}"
        if metric == "wer" and self.recogniser.command:
            return f"program {self._program(self.recogniser.command)}"
        name = "wav2vec2" if metric == "wer" else NEEDS.get(metric)
        return f"weights {self.weights[name][1][:12]}" if name in self.weights else ""

    def _program(self, command: tuple[str, ...]) -> str:
        """Checksum of a command and of the files that it names."""
        digest = hashlib.sha256("\0".join(command).encode())
        for argument in command:
            if (self.home / argument).is_file():
                digest.update(storage.sha256_file(self.home / argument).encode())
        return digest.hexdigest()[:12]


NONE = Tools()


def find(options: Evaluate, metrics: tuple[str, ...], root: Path) -> Tools:
    """What `metrics` need, by the settings; downloads weights that are to be downloaded.

    DiffseError, one line, when the settings ask for a metric but do not say where it gets what it needs.
    """
    names = [NEEDS[metric] for metric in metrics if metric in NEEDS]
    if "wer" in metrics:
        if options.recogniser.command:
            _check_command("evaluate.recogniser.command", options.recogniser.command, ("{input}", "{output}"))
        else:
            names.append("wav2vec2")
    if "polqa" in metrics:
        _check_command("evaluate.polqa.command", options.polqa.command, ("{clean}", "{enhanced}"))
    for name in names:
        weights.check(options, name)
    found = {name: weights.locate(options, name, root) for name in names}
    return Tools(found, options.recogniser, options.polqa, root)


def _check_command(where: str, command: tuple[str, ...], holders: tuple[str, ...]) -> None:
    if not all(holder in " ".join(command) for holder in holders):
        wanted = " and ".join(holders)
        raise DiffseError(f"{where}: give a program and its arguments, among them {wanted} (docs/metrics.md)")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread, without gradients: processes share the cores, and sums keep their order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)
