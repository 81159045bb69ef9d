"""The stage `enhance` of an external system: files that another program has enhanced, or the program itself.

A file is called by the id of its utterance (`file_name`), with the suffix .wav or .flac. It has one channel and
the length of the noisy signal, at the corpus's rate or at that of `external.<name>.rate`, from which it is then
resampled. Files are taken from `<folder>/<corpus>/`, or from a folder that the program fills.
"""

import hashlib
import re
import shutil
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffse import audio, external_program, paths, settings
from diffse.audio import AudioError
from diffse.data import manifest, shards
from diffse.errors import DiffseError
from diffse.progress import tqdm
from diffse.settings_reader import to_plain
from diffse.storage import atomic_folder, sha256_file, write_json

if TYPE_CHECKING:
    import pandas

SUFFIXES = (".wav", ".flac")
_NAMED = 3  # ids in an error line
_LONGEST = 240  # bytes of a file name, without suffix


def file_name(utterance: str) -> str:
    """The name, without suffix, of an utterance's file: its id.

    Whatever is no letter, digit, `_` or `-` is written as the %XX of its UTF-8 bytes, as in a URL; ids that
    `diffse prepare` makes have no such characters. Python's `urllib.parse.unquote` gives the id back.
    """
    text = unicodedata.normalize("NFC", utterance)
    return re.sub(r"[^\w-]", lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), text)


def home(root: Path, name: str) -> Path:
    """What an external system consists of: its files, or its program and what that needs."""
    return paths.source(root, "external") / name


@dataclass(frozen=True)
class Found:
    """What a folder holds: usable paths by utterance, why others are not usable, and names of no utterance."""

    files: dict[str, Path]
    refused: dict[str, str]
    extra: list[str]


@dataclass
class Problems:
    """Utterances that cannot be taken, by what is wrong: kind -> texts that begin with the id."""

    source: str
    total: int
    kinds: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, text: str) -> None:
        self.kinds.setdefault(kind, []).append(text)

    def settle(self) -> None:
        """DiffseError with one line that counts each kind and names the first of it, if there are any."""
        if not self.kinds:
            return
        texts = []
        for kind, found in self.kinds.items():
            more = ", ..." if len(found) > _NAMED else ""
            texts.append(f"{len(found)} {kind} ({', '.join(found[:_NAMED])}{more})")
        count = sum(map(len, self.kinds.values()))
        raise DiffseError(
            f"{self.source}: {count} of {self.total} utterances cannot be used: {'; '.join(texts)}; every test "
            "utterance needs <id>.wav or <id>.flac, mono and as long as its noisy signal"
        )


def run(params: settings.Params, name: str, corpus: str, root: Path) -> dict[str, Any]:
    """Take or make the files of external system `name` and write enhanced/<name>/<corpus>/.

    Raises DiffseError, one line, for files that are missing or do not fit, and a program that fails.
    """
    options, mixtures = params.external[name], paths.mixtures(root, corpus)
    frame = manifest.read(mixtures)
    frame = frame[frame["split"] == "test"].sort_values("id")
    if frame.empty:
        raise DiffseError(f"{mixtures}: no utterances in the test split; there is nothing to enhance")
    _check_names(mixtures, frame["id"])
    ids, seconds = list(frame["id"]), None
    with atomic_folder(paths.enhanced(root, name, corpus)) as temporary:
        if options.command:
            work = temporary / "work"
            seconds = _run_program(name, options, frame, mixtures, work, root)
            found, source = find(_output(work, name), ids), f"external.{name}: output of its program"
        else:
            folder = own_folder(name, options, corpus, root)
            found, source = find(folder, ids), str(folder)
        table = _take(found, frame, options.rate, Problems(source, len(frame)), temporary)
        facts = _facts(name, corpus, options, mixtures, found) | {"program_seconds": seconds}
        if options.command:
            shutil.rmtree(work)
        table.to_parquet(temporary / manifest.FILE, index=False)
        write_json(temporary / "enhanced.json", facts)
    return facts | {"utterances": len(table), "files": len(table)}


def _check_names(mixtures: Path, ids: "pandas.Series") -> None:
    for utterance in ids:
        if len(file_name(utterance).encode()) > _LONGEST:
            raise DiffseError(
                f"{mixtures}: id '{utterance[:40]}...' is too long for a file name; shorten it, then prepare"
            )


def _facts(name: str, corpus: str, options: settings.External, mixtures: Path, found: Found) -> dict[str, Any]:
    """enhanced.json: as for a trained system, with null for what nobody knows."""
    return {
        "system": name,
        "corpus": corpus,
        "external": True,
        "paper": options.paper,
        **dict.fromkeys(("recipe", "trained_on", "sampler", "evaluations", "real_time_factor")),
        "parameters": options.parameters or None,
        "mixtures_sha256": sha256_file(mixtures / manifest.FILE),
        "settings": to_plain(options),
        "files_sha256": None if options.command else _checksum(found),
        "extra": {"count": len(found.extra), "first": found.extra[:_NAMED]},
    }


def _checksum(found: Found) -> str:
    """Which files these were: one checksum over all, by utterance."""
    lines = [f"{utterance}\0{sha256_file(path)}\n" for utterance, path in sorted(found.files.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


# ----------------------------------------------------------------------------------------------- sources


def own_folder(name: str, options: settings.External, corpus: str, root: Path) -> Path:
    """`<folder>/<corpus>`, which must lie in the folder that the stage depends on."""
    folder = root / options.folder
    if not folder.is_relative_to(home(root, name)):
        raise DiffseError(
            f"external.{name}.folder: '{options.folder}' is not {home(Path(), name)} or below it, where DVC "
            "sees changes; move the files there, or make it a link to them"
        )
    if not (folder / corpus).is_dir():
        raise DiffseError(f"{folder / corpus}: no such folder; put the enhanced files of {corpus} there")
    return folder / corpus


def _run_program(
    name: str, options: settings.External, frame: "pandas.DataFrame", mixtures: Path, work: Path, root: Path
) -> float:
    """Write the noisy signals as WAV files for the program and let it work; returns its seconds."""
    folders = {"input": (work / "input").absolute(), "output": (work / "output").absolute()}
    for folder in folders.values():
        folder.mkdir(parents=True)
    for row in frame.to_dict("records"):
        wave = audio.resample(shards.read_pair(mixtures, row)[1], int(row["rate"]), options.rate)
        # floating point: the signals have 24 bits, and resampling may go beyond full scale
        audio.write(folders["input"] / f"{file_name(row['id'])}.wav", wave, options.rate, "FLOAT")
    where = f"external.{name}"
    return external_program.run(options.command, folders, options.timeout_seconds, work, root.absolute(), where)


def _output(work: Path, name: str) -> Path:
    folder = work / "output"
    if folder.is_symlink() or not folder.is_dir():
        raise DiffseError(f"external.{name}: its program has replaced its output folder; let it write into it")
    return folder


def find(folder: Path, ids: list[str]) -> Found:
    """The files of `folder` by utterance. `folder` may be a link; what is in it may not lead out of it."""
    wanted = {file_name(utterance): utterance for utterance in ids}
    base, found = folder.resolve(), Found({}, {}, [])
    for path in sorted(folder.iterdir()):
        utterance = wanted.get(unicodedata.normalize("NFC", path.stem))
        if utterance is None or path.suffix.lower() not in SUFFIXES:
            found.extra.append(path.name.encode("utf-8", "backslashreplace").decode())
        elif utterance in found.files:
            found.refused[utterance] = "is there twice"
        elif not path.resolve().is_relative_to(base):
            found.refused[utterance] = "is a link that leads out of the folder"
        elif not path.is_file():
            found.refused[utterance] = "is no file"
        else:
            found.files[utterance] = path
    for utterance in found.refused:
        found.files.pop(utterance, None)
    return found


# ---------------------------------------------------------------------------------------------- contents


def _take(
    found: Found, frame: "pandas.DataFrame", rate: int, problems: Problems, target: Path
) -> "pandas.DataFrame":
    """Check all files, then write them as shards into `target`; returns the manifest."""
    import pandas

    rows = frame.to_dict("records")
    for row in rows:
        _check(found, row, rate, problems)
    problems.settle()
    items = []
    with shards.ShardWriter(target, int(rows[0]["rate"]), 1) as writer:
        for row in tqdm(rows, unit="file", disable=None):
            try:
                wave = _read(found.files[row["id"]], row)
            except AudioError as error:  # damaged behind its header
                problems.add("unreadable", f"{row['id']}: {error.reason}")
                continue
            facts = {"peak": float(np.abs(wave).max()), "level_dbfs": float(audio.rms_dbfs(wave))}
            facts |= {"noisy_dbfs": row["noisy_dbfs"], "evaluations": None}
            items.append({"id": row["id"], "rate": int(row["rate"])} | writer.add(wave[None]) | facts)
    problems.settle()
    return pandas.DataFrame(items).astype({"evaluations": "Int64"})


def _check(found: Found, row: dict[str, Any], rate: int, problems: Problems) -> None:
    """Whether an utterance's file is there and, by its header, what it should be."""
    name, own = row["id"], int(row["rate"])
    if name in found.refused:
        return problems.add("not acceptable", f"{name}: {found.refused[name]}")
    if name not in found.files:
        return problems.add("missing", name)
    try:
        header = audio.info(found.files[name])
    except AudioError as error:
        return problems.add("unreadable", f"{name}: {error.reason}")
    samples = row["n_samples"] * header.rate / own
    if header.rate not in (own, rate):
        wanted = " or ".join(map(str, dict.fromkeys((own, rate))))
        problems.add("of another rate", f"{name}: {header.rate} Hz, not {wanted}")
    elif header.channels != 1:
        problems.add("not mono", f"{name}: {header.channels} channels")
    elif abs(header.samples - samples) > (header.rate != own):  # resampling may round either way
        problems.add("of another length", f"{name}: {header.samples} samples, not {samples:.0f}")


def _read(path: Path, row: dict[str, Any]) -> np.ndarray:
    """An utterance at the corpus's rate and in its length, [samples]."""
    wave, rate = audio.read(path)
    samples = int(row["n_samples"])
    wave = audio.resample(wave[0], rate, int(row["rate"]))[:samples]
    return np.pad(wave, (0, samples - len(wave)))
