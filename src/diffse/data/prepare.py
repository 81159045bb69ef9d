"""The step `prepare`: from recordings to mixtures, manifest and shards, in one atomic move."""

import contextlib
import csv
import logging
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from diffse import audio, paths, storage
from diffse.data import augmentation, manifest, mixing, rooms, sources
from diffse.data.corpora import registry
from diffse.data.manifest import SPLITS
from diffse.data.parallel import Workers
from diffse.data.recordings import (
    Noise,
    Recordings,
    Rejected,
    Rir,
    Speech,
    check_disjoint,
    mixture_id,
    stamp,
    stamped,
    with_unique_ids,
)
from diffse.data.shards import MAX_BYTES, item_bytes
from diffse.errors import DiffseError
from diffse.progress import tqdm
from diffse.settings import Augmentation, Corpus, Levels, Params, Rooms

log = logging.getLogger(__name__)

_DEMO_MIN_SECONDS = 0.5


@dataclass(frozen=True)
class _Job:
    """What every part of one preparation needs to know."""

    settings: Corpus
    corpus: str
    target: Path  # data/<corpus>/mixtures
    workspace: Path  # for what is needed until the end
    workers: Workers


def run(params: Params, corpus: str, root: Path) -> dict:
    """Prepare `corpus` into data/<corpus>/mixtures and return counts for the run record.

    Returns {"utterances": {split: count}, "hours": float, "rejected": int}. The same settings and
    recordings give the same bytes, whatever the number of processes. DiffseError leaves what was there.
    """
    root = Path(root)
    if corpus not in params.prepare:
        raise DiffseError(f"'{corpus}' has no entry under 'prepare' (there: {', '.join(params.prepare)})")
    settings = params.prepare[corpus]
    _check_settings(settings, f"prepare.{corpus}")
    target = paths.mixtures(root, corpus)
    with (
        storage.exclusive_lock(target.parent, f"the preparation of '{corpus}'"),
        _workspace(target.parent) as workspace,
        Workers(settings.processes) as workers,
    ):
        source = sources.local(settings, paths.source(root, corpus))
        found = stamped(registry.find(settings, source, workspace, workers))
        return _prepare(_Job(settings, corpus, target, workspace, workers), found)


@contextlib.contextmanager
def _workspace(parent: Path) -> Iterator[Path]:
    """A folder for what a corpus synthesises. One that a killed run left behind is emptied first."""
    folder = parent / ".recordings.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(job: _Job, found: Recordings) -> dict:
    counts = _mixture_counts(job.settings)
    speech = with_unique_ids(found.speech, counts)
    _check_splits(job.settings, speech, found.noise, found.rirs)
    total = len(speech) + len(found.noise) + len(found.rirs) + len(found.rejected)
    noises, silent = _scan_noises(job, found.noise)
    rirs, unfit = _scan_rirs(job, found.rirs)
    rejected = found.rejected + silent + unfit
    kinds, measured = _kinds(noises), _rooms(rirs)
    for split in sorted({item.split for item in speech}):
        if found.noise and not kinds[split]:
            _refuse(job, rejected, f"there is no usable noise for the split '{split}'")
        if found.rirs and not measured[split]:
            _refuse(job, rejected, f"there is no usable room response for the split '{split}'")
    planned = _planned(speech, counts)
    tasks = _tasks(job, planned, kinds, measured)
    with (
        storage.atomic_folder(job.target) as unfinished,
        manifest.Collector(job.workspace / "rows") as rows,
    ):
        made, refused = _write_mixtures(job, tasks, len(planned), unfinished, rows)
        rejected = _once(rejected + refused)
        _check_share(job, rejected, total, rows.count)
        _write_rejected(unfinished / manifest.REJECTED, rejected)
        _write_manifest(rows, unfinished)
    _failed_list(job).unlink(missing_ok=True)
    return _summary(job, made, rejected)


def _check_settings(settings: Corpus, where: str) -> None:
    if not 1000 <= settings.rate <= 192000:
        raise DiffseError(f"{where}.rate is {settings.rate}; give a sample rate in Hz, such as 16000")
    if not 0.0 <= settings.max_rejected <= 1.0:
        raise DiffseError(f"{where}.max_rejected is {settings.max_rejected:g}; give a share from 0 to 1")
    wanted = registry.ROOMS.get(type(settings))
    if wanted and settings.rooms.kind != wanted:
        raise DiffseError(f"{where}.rooms.kind is '{settings.rooms.kind}'; this corpus needs '{wanted}'")
    if registry.has_pairs(settings):
        return
    for split in SPLITS:
        low, high = getattr(getattr(settings, "snr_db", None), split, (0.0, 0.0))
        if low > high:
            raise DiffseError(f"{where}.snr_db.{split} is [{low:g}, {high:g}]; give the lower value first")
        count = getattr(settings.mixtures_per_utterance, split)
        if count < 1:
            raise DiffseError(f"{where}.mixtures_per_utterance.{split} is {count}; give 1 or more")


def _mixture_counts(settings: Corpus) -> dict[str, int]:
    if registry.has_pairs(settings):
        return dict.fromkeys(SPLITS, 1)
    return {split: getattr(settings.mixtures_per_utterance, split) for split in SPLITS}


def _check_splits(settings: Corpus, speech: list, noises: list[Noise], rirs: list[Rir]) -> None:
    check_disjoint(
        ((item.speaker, item.split, item.source) for item in speech),
        "speaker",
        "each speaker belongs to one split only",
    )
    check_disjoint(((item.room, item.split, item.source) for item in rirs), "room", "keep each in one split")
    if registry.shares_noise(settings):
        log.warning("noises: shared, as published: all splits have the same noise, and the gate will say so")
        return
    check_disjoint(
        ((item.source, item.split, item.source) for item in noises), "noise", "keep each recording in one split"
    )


def _scan_noises(job: _Job, noises: list[Noise]) -> tuple[list[Noise], list[Rejected]]:
    """Decode every noise recording once, so that only sound ones are drawn."""
    scanned = job.workers.map(scan_noise, noises, chunk=16)
    results = list(tqdm(scanned, "scan noise", len(noises), unit="file", disable=None))
    sound = [item for item in results if isinstance(item, Noise)]
    if not registry.shares_noise(job.settings):
        check_disjoint(
            ((item.sha256, item.split, item.source) for item in sound),
            "a noise recording with the checksum",
            "remove one of the two copies",
        )
    return sound, [item for item in results if isinstance(item, Rejected)]


def scan_noise(noise: Noise) -> Noise | Rejected:
    """Length, rate and checksum of a noise recording, or why it cannot be used."""
    try:
        scan, sha256 = audio.scan(noise.path), audio.checksum(noise.path)
    except audio.AudioError as error:
        return Rejected(noise.source, error.reason)
    if noise.stamp is not None and stamp(noise.path) != noise.stamp:
        return Rejected(noise.source, mixing.CHANGED)
    if scan.level_dbfs < mixing.SILENT_DBFS:
        return Rejected(noise.source, f"silent (RMS {scan.level_dbfs:.0f} dBFS)")
    return replace(noise, samples=scan.samples, rate=scan.rate, sha256=sha256)


def _scan_rirs(job: _Job, rirs: list[Rir]) -> tuple[list[Rir], list[Rejected]]:
    """Measure every response once, so that only sound ones are drawn."""
    if not rirs:
        return [], []
    results = list(job.workers.map(partial(rooms.scan, max_t60=job.settings.rooms.max_t60), rirs, chunk=4))
    return [x for x in results if isinstance(x, Rir)], [x for x in results if isinstance(x, Rejected)]


def _rooms(rirs: list[Rir]) -> dict[str, dict[str, list[Rir]]]:
    """Split -> room -> responses, sorted by name."""
    found: dict[str, dict[str, list[Rir]]] = defaultdict(lambda: defaultdict(list))
    for rir in sorted(rirs, key=lambda item: item.source):
        found[rir.split][rir.room].append(rir)
    return found


def _kinds(noises: list[Noise]) -> dict[str, dict[str, list[Noise]]]:
    """Split -> kind -> recordings, sorted by name so that draws do not depend on the listing's order."""
    kinds: dict[str, dict[str, list[Noise]]] = defaultdict(lambda: defaultdict(list))
    for noise in sorted(noises, key=lambda item: item.source):
        kinds[noise.split][noise.kind].append(noise)
    return kinds


def _planned(speech: list[Speech], counts: dict[str, int]) -> list[tuple[str, Speech]]:
    """(id, speech) of every row, in the order of the manifest."""
    rows = [
        (mixture_id(item.id, number), item) for item in speech for number in range(1, counts[item.split] + 1)
    ]
    return sorted(rows, key=lambda row: (SPLITS.index(row[1].split), row[0]))


def _tasks(job: _Job, planned: list[tuple[str, Speech]], kinds: dict, measured: dict) -> Iterator[mixing.Task]:
    settings = job.settings
    min_seconds = getattr(settings, "min_seconds", _DEMO_MIN_SECONDS)
    in_rooms = getattr(settings, "rooms", Rooms())
    levels = getattr(settings, "levels", Levels())
    changes = getattr(settings, "augmentation", Augmentation())
    for row_id, item in planned:
        seed = mixing.row_seed(settings.seed, row_id)
        noise, snr_db, room = None, None, None
        if item.noisy_path is None:
            room = rooms.draw(in_rooms, measured[item.split], seed)
            if kinds[item.split]:
                noise, snr_db = mixing.draw(
                    seed, _allowed(kinds[item.split], item), getattr(settings.snr_db, item.split)
                )
                snr_db = _snr_db(seed, item, settings, snr_db)
        task = mixing.Task(row_id, job.corpus, seed, settings.rate, min_seconds, item, noise, snr_db)
        changed = augmentation.draw(changes, item.split, seed)
        yield replace(task, room=room, rooms=in_rooms, levels=levels, augmented=changed)


def _snr_db(seed: int, item: Speech, settings: Corpus, drawn: float) -> float:
    """SNR of a mixture: what the corpus says, one of the levels that the settings list, or what was drawn."""
    if item.snr_db is not None:
        return item.snr_db
    choices = getattr(getattr(settings, "snr_levels", None), item.split, ())
    return choices[int(np.random.default_rng([seed, 7]).integers(len(choices)))] if choices else drawn


def _allowed(kinds: dict[str, list[Noise]], item: Speech) -> dict[str, list[Noise]]:
    """The kinds of noise that an utterance may be mixed with."""
    return {item.noise_kind: kinds[item.noise_kind]} if item.noise_kind else kinds


@dataclass
class _Made:
    """What became of the rows so far."""

    utterances: dict[str, int]
    seconds: float = 0.0

    def count(self, rows: list[dict]) -> None:
        for row in rows:
            self.utterances[row["split"]] += 1
            self.seconds += row["seconds"]


def _write_mixtures(
    job: _Job, tasks: Iterator[mixing.Task], total: int, folder: Path, rows: manifest.Collector
) -> tuple[_Made, list[Rejected]]:
    """Each worker writes whole shards, so that compression runs in parallel and no audio is passed on."""
    made, refused = _Made(dict.fromkeys(SPLITS, 0)), []
    with (
        contextlib.closing(job.workers.map(mixing.make_shard, _shard_tasks(tasks, folder))) as written,
        tqdm(desc=f"prepare {job.corpus}", total=total, unit="mixture", disable=None) as progress,
    ):
        for shard_rows, shard_refused in written:
            rows.add(shard_rows)
            made.count(shard_rows)
            refused += shard_refused
            progress.update(len(shard_rows) + len(shard_refused))
    return made, refused


def _shard_tasks(tasks: Iterator[mixing.Task], folder: Path) -> Iterator[mixing.ShardTask]:
    """Deal tasks in order to shards by their planned lengths, which no process needs to wait for."""
    number, batch, used = 0, [], 0
    for task in tasks:
        size = item_bytes(mixing.planned_samples(task), channels=2)
        if batch and used + size > MAX_BYTES:
            yield mixing.ShardTask(folder, number, MAX_BYTES, batch)
            number, batch, used = number + 1, [], 0
        batch.append(task)
        used += size
    if batch:
        yield mixing.ShardTask(folder, number, MAX_BYTES, batch)


def _once(rejected: list[Rejected]) -> list[Rejected]:
    """One line per file: a bad file spoils every mixture it would be in."""
    first: dict[str, Rejected] = {}
    for item in rejected:
        first.setdefault(item.file, item)
    return sorted(first.values(), key=lambda item: item.file)


def _check_share(job: _Job, rejected: list[Rejected], total: int, rows: int) -> None:
    limit = job.settings.max_rejected
    if rejected and len(rejected) > limit * total:
        _refuse(job, rejected, f"{len(rejected)} of {total} files cannot be used (max_rejected: {limit:g})")
    if not rows:
        _refuse(job, rejected, "there is nothing to prepare")


def _refuse(job: _Job, rejected: list[Rejected], problem: str) -> None:
    """Fail, leaving the list of refused files beside the untouched artifact."""
    message = f"corpus '{job.corpus}': {problem}"
    if rejected:
        first = _once(rejected)[0]
        _write_rejected(_failed_list(job), _once(rejected))
        message += f"; first: {first.file}: {first.reason}; all of them: {_failed_list(job)}"
    raise DiffseError(message)


def _failed_list(job: _Job) -> Path:
    return job.target.parent / manifest.REJECTED


def _write_rejected(path: Path, rejected: list[Rejected]) -> None:
    with storage.atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["file", "reason"])
        table.writerows([item.file, item.reason] for item in rejected)


def _write_manifest(rows: manifest.Collector, folder: Path) -> None:
    rows.write(folder)


def _summary(job: _Job, made: _Made, rejected: list[Rejected]) -> dict:
    utterances, hours = made.utterances, made.seconds / 3600.0
    log.info(
        "prepared %s: %s mixtures, %.3f h, %d files rejected", job.corpus, utterances, hours, len(rejected)
    )
    for item in rejected:
        log.warning("rejected %s: %s", item.file, item.reason)
    return {"utterances": utterances, "hours": round(hours, 4), "rejected": len(rejected)}
