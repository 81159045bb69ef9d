"""`diffse enhance IN OUT --checkpoint X`: files, folders and objects of a store, in bounded memory."""

import contextlib
import time
from pathlib import Path

import numpy as np
import soundfile

from diffse import audio
from diffse.enhance_places import Place, exists, here, plan, shard_of
from diffse.enhancer import Enhancer
from diffse.errors import DiffseError
from diffse.precision import Precision
from diffse.progress import tqdm
from diffse.storage import atomic_file


def enhance_paths(
    source: Place,
    target: Place,
    checkpoint: Path,
    *,
    steps: int | None = None,
    seed: int | None = None,
    batch: int | None = None,
    device: str | None = None,
    predictor: Path | None = None,
    ema: float | None = None,
    precision: Precision | None = None,
    resample: bool = True,
    overwrite: bool = False,
    shard: str = "1/1",
) -> dict:
    """Enhance a file, or every wav, flac and ogg file below a folder or `s3://` prefix.

    They keep their names in `target`, which is of either kind.

    Format, sample type, rate, channels and length stay as they are. Existing outputs are kept unless
    `overwrite`; a bad file does not stop the others, but makes the whole end with a DiffseError. `predictor`,
    `ema` and `precision` as in `Enhancer.from_checkpoint`. Of `shard` "2/5" every fifth file is enhanced, from
    the second on: machines that are given one each do all of a folder, and each file comes out as alone.
    """
    jobs = shard_of(plan(source, target), shard)
    change = {"steps": steps, "predictor": predictor, "ema": ema, "precision": precision}
    enhancer = Enhancer.from_checkpoint(checkpoint, device, **change, batch=batch, seed=seed, resample=resample)
    done, kept, failures, seconds, clipped = 0, 0, [], 0.0, 0
    began = time.perf_counter()
    for job in tqdm(jobs, unit="file", disable=None):
        if not overwrite and exists(job.target):
            kept += 1
            continue
        try:
            with here(job) as (file, out):
                length, over = enhance_file(enhancer, file, out, job.key)
        except DiffseError as error:
            failures.append(str(error))
            continue
        done, seconds, clipped = done + 1, seconds + length, clipped + over
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise DiffseError(f"{failures[0]}{more}; {done} of {len(jobs)} files were enhanced")
    factor = (time.perf_counter() - began) / seconds if seconds else None
    return {
        "enhanced": done,
        "kept": kept,
        "seconds_of_audio": round(seconds, 3),
        "real_time_factor": factor and round(factor, 4),
        "network_evaluations": enhancer.evaluations,
        "clipped_samples": clipped,
        "output": str(target),
    }


def enhance_file(enhancer: Enhancer, file: Path, out: Path, key: str) -> tuple[float, int]:
    """Enhance one file chunk by chunk; returns (its seconds, samples clipped by an integer format)."""
    info = audio.info(file)
    if info.rate != enhancer.rate and not enhancer.resample:
        raise audio.AudioError(
            file, f"has {info.rate} Hz, but the checkpoint is for {enhancer.rate} Hz; omit --no-resample"
        )
    clipped = 0
    with soundfile.SoundFile(str(file)) as stream, atomic_file(out) as temporary:
        form, subtype = output_format(stream, out)

        def read(start: int, stop: int) -> np.ndarray:
            try:
                stream.seek(start)
                wave = stream.read(stop - start, dtype="float32", always_2d=True).T
            except soundfile.SoundFileError as error:
                raise audio.AudioError(file, f"damaged or truncated ({error}); restore it") from None
            if not np.isfinite(wave).all():
                raise audio.AudioError(file, "has NaN or infinite samples; repair the recording")
            return wave

        try:
            with (
                contextlib.closing(audio.SureFile(temporary)) as written,
                soundfile.SoundFile(written, "w", info.rate, info.channels, subtype, format=form) as sink,
            ):
                for piece in enhancer.stream(read, info.samples, info.rate, key):
                    clipped += 0 if subtype in ("FLOAT", "DOUBLE") else int((np.abs(piece) > 1).sum())
                    sink.write(piece.T)
        except (soundfile.SoundFileError, OSError) as error:
            raise DiffseError(f"{file}: cannot be enhanced to {out} ({error}); is the disk full?") from None
    return info.samples / info.rate, clipped


def output_format(stream: soundfile.SoundFile, out: Path) -> tuple[str, str]:
    """(format, sample type): those of the input, or the output suffix's own where the suffixes differ."""
    form = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG"}[out.suffix.lower()]
    if form == stream.format or (form == "WAV" and stream.format in ("WAVEX", "RF64")):
        return stream.format, stream.subtype
    if soundfile.check_format(form, stream.subtype):
        return form, stream.subtype
    return form, soundfile.default_subtype(form)
