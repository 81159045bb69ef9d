"""The stage `enhance`: a trained system over the test split of a corpus."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from diffse import audio, checkpoint, costs, paths, recipes, settings
from diffse.data import manifest, shards
from diffse.enhancer import Enhancer, checked_device
from diffse.errors import DiffseError
from diffse.progress import tqdm
from diffse.settings_reader import to_plain
from diffse.storage import atomic_folder, sha256_file, write_json

WINDOW = 256  # utterances held at once


def run(params: settings.Params, system: str, corpus: str, root: Path) -> dict:
    """Enhance data/<corpus>/mixtures (test) with models/<system> and write enhanced/<system>/<corpus>/.

    Raises DiffseError when the checkpoint's rate is not the corpus's, or there is nothing to enhance.
    """
    recipe, trained_on = paths.split_system(system)
    if recipe not in params.enhance:
        raise DiffseError(f"'{recipe}' has no entry under 'enhance' in params.yaml")
    options = params.enhance[recipe]
    folder = paths.model(root, system) / options.weights
    enhancer = Enhancer.from_checkpoint(folder, checked_device(None), enhance=options, resample=False)
    mixtures = paths.mixtures(root, corpus)
    frame = manifest.read(mixtures)
    frame = frame[frame["split"] == "test"].sort_values("id")
    if frame.empty:
        raise DiffseError(f"{mixtures}: no utterances in the test split; there is nothing to enhance")
    _check_rate(frame, enhancer, mixtures)
    target = paths.enhanced(root, system, corpus)
    macs = _macs_per_second(frame, enhancer, mixtures)  # before times are taken: it also warms up
    with atomic_folder(target) as temporary:
        with costs.PeakMemory(enhancer.device) as memory:
            table = _enhance_rows(frame, enhancer, mixtures, temporary)
        table.drop(columns="compute_seconds").to_parquet(temporary / "manifest.parquet", index=False)
        summary = {
            "system": system,
            "corpus": corpus,
            "recipe": recipe,
            "trained_on": trained_on,
            "sampler": to_plain(options.sampler),
            "evaluations": enhancer.evaluations,
            "parameters": enhancer.system.description["parameters"],
            "macs_per_second": macs,
            "peak_memory_mb": memory.megabytes,
            "checkpoint_sha256": sha256_file(folder / checkpoint.WEIGHTS),
            "mixtures_sha256": sha256_file(mixtures / "manifest.parquet"),
            "seed": options.seed,
            "ema": options.ema,
        }
        if options.ema is not None:
            summary["snapshots_sha256"] = recipes.snapshots(folder, options.ema)
        seconds = float(table["n_samples"].sum()) / enhancer.rate
        summary["real_time_factor"] = float(f"{table['compute_seconds'].sum() / seconds:.3g}")
        write_json(temporary / "enhanced.json", summary)
    return summary | {"utterances": len(table), "seconds_of_audio": seconds, "device": str(enhancer.device)}


def _check_rate(frame, enhancer: Enhancer, mixtures: Path) -> None:
    rates = sorted(set(frame["rate"]))
    if rates != [enhancer.rate]:
        raise DiffseError(
            f"{mixtures}: {', '.join(map(str, rates))} Hz, but the checkpoint is for {enhancer.rate} Hz; "
            f"prepare this corpus with rate: {enhancer.rate}"
        )


def _macs_per_second(frame, enhancer: Enhancer, mixtures: Path) -> float:
    """Counted on the utterance of median length: padding weighs more in a short one."""
    row = frame.sort_values(["n_samples", "id"]).iloc[len(frame) // 2]
    return costs.macs_per_second(enhancer, shards.read_pair(mixtures, row)[1], row["id"])


def _enhance_rows(frame, enhancer: Enhancer, mixtures: Path, target: Path):
    """Enhance all rows, write shards and return the manifest."""
    import pandas as pd

    rows = []
    with (
        shards.ShardWriter(target, enhancer.rate, 1) as writer,
        tqdm(total=len(frame), unit="file", disable=None) as bar,
    ):
        for row, wave, noisy, seconds in _windows(frame, enhancer, mixtures, partial(bar.update, 1)):
            stored = writer.add(wave[None])
            rows.append(
                {
                    "id": row["id"],
                    "rate": enhancer.rate,
                    **stored,
                    "peak": float(np.abs(wave).max()),
                    "level_dbfs": float(audio.rms_dbfs(wave)),
                    "noisy_dbfs": float(audio.rms_dbfs(noisy)),
                    "evaluations": enhancer.evaluations,
                    "compute_seconds": seconds,
                }
            )
    return pd.DataFrame(rows)


def _windows(frame, enhancer: Enhancer, mixtures: Path, tell: Callable[[], object]) -> Iterator[tuple]:
    """(row, enhanced, noisy, seconds) in the frame's order, a bounded number of utterances at once.

    `tell()` is called whenever one more is enhanced.
    """
    for start in range(0, len(frame), WINDOW):
        rows = [row for _, row in frame.iloc[start : start + WINDOW].iterrows()]
        noisy = [shards.read_pair(mixtures, row)[1] for row in rows]
        began = time.perf_counter()
        enhanced = enhancer.many(noisy, enhancer.rate, [row["id"] for row in rows], tell)
        seconds = time.perf_counter() - began
        total = sum(map(len, noisy))
        for row, wave, original in zip(rows, enhanced, noisy, strict=True):
            yield row, wave, original, seconds * len(original) / total
