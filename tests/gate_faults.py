"""Faults for the gates: each damages a project in one way, and stands beside the rule that must see it."""

import dataclasses
import json

import numpy as np
import pandas
from safetensors.torch import load_file, save_file

from diffse import paths, settings, storage
from diffse.data import manifest, shards
from diffse.validation import drift

SYSTEM = "bridge.toy"
NAMES = {
    "mixtures": ("toy",),
    "cache": ("toy",),
    "checkpoint": (SYSTEM,),
    "enhanced": (SYSTEM, "toy"),
    "metrics": ("unprocessed", "toy"),
}


def in_manifest(artifact="mixtures", **changes):
    """Set columns of a manifest: a value goes into row 0, a function gets the column and returns another."""

    def plant(root):
        folder = paths.mixtures(root, "toy") if artifact == "mixtures" else paths.enhanced(root, SYSTEM, "toy")
        columns = manifest.COLUMNS if artifact == "mixtures" else manifest.ENHANCED_COLUMNS
        frame = manifest.read(folder, columns)
        for column, change in changes.items():
            values = frame[column].tolist() if column in frame.columns else []
            frame[column] = change(values) if callable(change) else [change, *values[1:]]
        manifest.write(frame, folder, columns)

    return plant


def rows_of_manifest(artifact, select):
    """Keep the rows of a manifest that `select` returns."""

    def plant(root):
        folder = paths.mixtures(root, "toy") if artifact == "mixtures" else paths.enhanced(root, SYSTEM, "toy")
        columns = manifest.COLUMNS if artifact == "mixtures" else manifest.ENHANCED_COLUMNS
        manifest.write(select(manifest.read(folder, columns)), folder, columns)

    return plant


def in_audio(folder_of, change, keep_checksum=False):
    """Write the shards of an artifact again with the wave [channels, samples] of row 0 changed."""

    def plant(root):
        folder = folder_of(root)
        columns = manifest.COLUMNS if "mixtures" in folder.parts else manifest.ENHANCED_COLUMNS
        frame = manifest.read(folder, columns)
        rows = frame.to_dict("records")
        waves = [shards.read_item(folder, row["shard"], row["position"], row["n_samples"]) for row in rows]
        waves[0] = change(waves[0])
        with shards.ShardWriter(folder, 16000, len(waves[0])) as writer:
            for row, wave in zip(rows, waves, strict=True):
                placed = writer.add(wave)
                row |= {name: placed[name] for name in ("shard", "position", "n_samples")}
                row["sha256"] = row["sha256"] if keep_checksum else placed["sha256"]
        manifest.write(pandas.DataFrame(rows), folder, columns)

    return plant


def in_all_audio(change):
    """Write the shards of the mixtures again with `change` of the list of all waves."""

    def plant(root):
        folder = mixtures_of(root)
        rows = manifest.read(folder).to_dict("records")
        waves = [shards.read_item(folder, row["shard"], row["position"], row["n_samples"]) for row in rows]
        waves = change(waves)
        with shards.ShardWriter(folder, 16000, len(waves[0])) as writer:
            for row, wave in zip(rows, waves, strict=True):
                row |= writer.add(wave)
        manifest.write(pandas.DataFrame(rows), folder)

    return plant


def copied(index):
    """The clean signal of row 0 becomes that of another row, quieter and by another name."""

    def change(waves):
        clean = 0.7 * waves[index][0]
        noise = waves[0][1] - waves[0][0]
        return [np.stack([clean, clean + noise]), *waves[1:]]

    return in_all_audio(change)


def flipped(pattern):
    """One byte in the middle of a file, upside down."""

    def plant(root):
        path = sorted(root.glob(pattern))[0]
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)

    return plant


def last_version(**statistics):
    """Another version passed the gate before, with these statistics (dots written as '__')."""

    def plant(root):
        known = {name.replace("__", "."): value for name, value in statistics.items()}
        result = {"success": True, "statistics": known, "inputs": {"data/toy/mixtures/manifest.parquet": "old"}}
        storage.write_json(paths.gate(root, "mixtures", "toy"), result)

    return plant


def expected(**sizes):
    """What is known of the training split."""
    return limits("mixtures", expected={"toy": {"train": settings.Expected(**sizes)}})


def low_passed(pair):
    """Nothing above a fiftieth of the band."""
    spectrum = np.fft.rfft(pair)
    spectrum[:, spectrum.shape[1] // 50 :] = 0
    return np.fft.irfft(spectrum, pair.shape[1])


def offset(*values):
    """A constant added to clean and noisy."""
    return in_audio(mixtures_of, lambda pair: pair + np.array(values)[:, None])


def fading(*sides):
    """Silence after the first 999 samples of some sides."""

    def change(pair):
        pair = pair.copy()
        pair[list(sides), 999:] = 0
        return pair

    return in_audio(mixtures_of, change)


def late(side, samples):
    """One side of a pair later than the other."""

    def change(pair):
        pair = pair.copy()
        pair[side] = np.roll(pair[side], samples)
        return pair

    return in_audio(mixtures_of, change)


def delete(pattern):
    def plant(root):
        found = list(root.glob(pattern))
        assert found
        for path in found:
            path.unlink()

    return plant


def in_json(pattern, **changes):
    """Set keys of a JSON file; dots in a key, written as '__', go down."""

    def plant(root):
        (path,) = root.glob(pattern)
        value = json.loads(path.read_text())
        for key, change in changes.items():
            *way, last = key.split("__")
            block = value
            for part in way:
                block = block[part]
            block[last] = change
        path.write_text(json.dumps(value))

    return plant


def in_table(pattern, change):
    """Change a Parquet or CSV table."""

    def plant(root):
        (path,) = root.glob(pattern)
        if path.suffix == ".parquet":
            change(pandas.read_parquet(path)).to_parquet(path, index=False)
        else:
            change(pandas.read_csv(path, keep_default_na=False, dtype=str)).to_csv(path, index=False)

    return plant


def in_array(pattern, change):
    def plant(root):
        path = sorted(root.glob(pattern))[0]
        np.save(path, change(np.load(path)))

    return plant


def put(values, position, value):
    values = values.copy()
    values[position] = value
    return values


def column(name, position, value):
    """A table with one value changed."""

    def change(frame):
        frame = frame.copy()
        values = frame[name].tolist()
        values[position] = value
        frame[name] = values
        return frame

    return change


def in_weights(change, with_checksum=True):
    def plant(root):
        path = paths.model(root, SYSTEM) / "best/weights.safetensors"
        save_file(change(load_file(path)), path)
        if with_checksum:
            in_json("models/*/best/checkpoint.json", weights_sha256=storage.sha256_file(path))(root)

    return plant


def write(name, text):
    def plant(root):
        (root / name).write_text(text)

    return plant


def limits(artifact, **changes):
    """Another limit instead of another artifact."""

    def plant(root, params):
        block = dataclasses.replace(getattr(params.check, artifact), **changes)
        return dataclasses.replace(params, check=dataclasses.replace(params.check, **{artifact: block}))

    return plant


def both(*faults):
    """Several faults that only together leave nothing."""

    def plant(root):
        for fault in faults:
            fault(root)

    return plant


def mixtures_of(root):
    return paths.mixtures(root, "toy")


def enhanced_of(root):
    return paths.enhanced(root, SYSTEM, "toy")


def first_and_last(values):
    """The last row's value in the first row: two splits then share it."""
    return [values[-1], *values[1:]]


def nothing(values):
    return [float("nan")] * len(values)


NAN, INF = float("nan"), float("inf")
BEST = f"models/{SYSTEM}/best"
CSV = "results/unprocessed/toy/per_file.csv"
SUMMARY = "results/unprocessed/toy/summary.json"
CACHE, ENHANCED = "data/toy/cache", f"enhanced/{SYSTEM}/toy"

INDEX, DESCRIPTION = f"{CACHE}/index.parquet", f"{CACHE}/cache.json"
HISTORY = f"models/{SYSTEM}/history.csv"
NO_MIXTURES = rows_of_manifest("mixtures", lambda frame: frame.iloc[:0])

# artifact -> (rule, fault that it must find)
FAULTS = {
    "mixtures": [
        ("utterances", NO_MIXTURES),
        ("ids", in_manifest(id=lambda ids: [ids[1], *ids[1:]])),
        ("corpus", in_manifest(corpus="other")),
        ("split names", in_manifest(split="dev")),
        ("sampling rate", in_manifest(rate=8000)),
        ("duration (s)", in_manifest(seconds=0.1)),
        ("duration (s)", in_manifest(seconds=75.0)),
        ("duration (s)", in_manifest(seconds=nothing)),
        ("samples as stated", in_manifest(seconds=1.5)),
        ("finite samples", in_manifest(finite=False)),
        ("level of the clean signal (dBFS)", in_manifest(level_dbfs=-INF)),
        ("level of the clean signal (dBFS)", in_manifest(level_dbfs=nothing)),
        ("level of the noisy signal (dBFS)", in_manifest(noisy_dbfs=-90.0)),
        ("clipping", in_manifest(clipped=0.2)),
        ("peak", in_manifest(peak=1.2)),
        ("gain", in_manifest(gain=0.0)),
        ("channels", in_all_audio(lambda waves: [wave[:1] for wave in waves])),
        ("offset of the clean signal (DC)", offset(0.1, 0.0)),
        ("offset of the noisy signal (DC)", offset(0.0, 0.1)),
        ("silence of the clean signal", fading(0)),
        ("silence of the noisy signal", fading(0, 1)),
        ("band of the clean signal (share of half the rate)", in_audio(mixtures_of, low_passed)),
        ("clean and noisy in time (ms apart)", late(1, 40)),
        ("clean and noisy in time (ms apart)", late(0, 9)),
        ("clean is in noisy (correlation)", in_audio(mixtures_of, lambda p: np.stack([p[0], p[1] - p[0]]))),
        ("measured SNR (dB)", in_manifest(snr_measured_db=INF)),
        ("SNR of the stored audio (dB)", in_audio(mixtures_of, lambda pair: pair[[0, 0]])),
        ("SNR as stated (dB apart)", in_audio(mixtures_of, lambda pair: pair * [[0.5], [1]])),
        ("SNR as asked for (dB apart)", in_manifest(snr_db=40.0)),
        ("SNR as asked for (dB apart)", in_manifest(snr_db=NAN)),
        ("SNR as asked for (dB apart)", in_manifest(snr_db=lambda values: [x + 0.15 for x in values])),
        ("SNR as asked for, in the audio (dB apart)", in_audio(mixtures_of, lambda pair: pair * [[0.98], [1]])),
        ("shards are there", delete("data/toy/mixtures/*.flac")),
        ("checksums match", in_audio(mixtures_of, lambda pair: pair + 2**-22, keep_checksum=True)),
        ("shards are there", flipped("data/toy/mixtures/*.flac")),
        ("no near-duplicates in a split", copied(1)),
        ("no near-duplicates between splits", copied(-1)),
        ("no mixture twice", in_manifest(sha256=lambda sums: [sums[1], *sums[1:]])),
        ("utterances per split", rows_of_manifest("mixtures", lambda t: t[t["split"] != "valid"])),
        ("speakers in one split", in_manifest(speaker=first_and_last)),
        ("noise recordings in one split", in_manifest(noise_source=first_and_last)),
        ("noise recordings by checksum in one split", in_manifest(noise_sha256=first_and_last)),
        ("rooms in one split", in_manifest(room=lambda rooms: ["hall"] * len(rooms))),
        ("clean recordings by checksum in one split", in_manifest(clean_sha256=first_and_last)),
        ("utterances as known of the corpus (apart)", expected(utterances=4)),
        ("speakers as known of the corpus (apart)", expected(speakers=2)),
        ("hours as known of the corpus (relative)", expected(hours=1.0)),
        (drift.TITLES["relative"], last_version(train__utterances=2)),
        (drift.TITLES["db"], last_version(test__snr_db=40.0)),
        (drift.TITLES["t60"], both(in_manifest(t60=lambda _: [0.5] * 9), last_version(test__t60=0.9))),
        (drift.TITLES["shares"], last_version(train__noise__street=1.0, train__utterances=3)),
    ],
    "cache": [
        ("made from the present mixtures", in_manifest(gender="f")),
        ("transform and corpus as set", in_json(DESCRIPTION, stft__exponent=0.6)),
        ("sampling rate of the mixtures", in_json(DESCRIPTION, rate=8000)),
        ("storage error as measured (dB)", in_json(DESCRIPTION, storage_error_db__spectrogram__max=-9.0)),
        ("spread of the clean coefficients", in_json(DESCRIPTION, statistics__sigma_x=NAN)),
        ("spread of the noise coefficients", in_json(DESCRIPTION, statistics__sigma_n=0.0)),
        ("files", in_json(DESCRIPTION, files={})),
        ("files are there", delete(f"{CACHE}/train-*.npy")),
        ("files are there", write(f"{CACHE}/train-00000.npy", "not an array")),
        ("shapes and types", in_array(f"{CACHE}/train-*.npy", lambda x: x.astype("float32"))),
        ("shapes and types", in_array(f"{CACHE}/train-*.npy", lambda x: x[:-1])),
        ("checksums match", in_array(f"{CACHE}/train-*.npy", lambda x: x * 2)),
        ("checksums match", flipped(f"{CACHE}/valid-*.npy")),
        ("checksums match", flipped(f"{CACHE}/checksums.npy")),
        ("pages that were changed", flipped(f"{CACHE}/peaks-train.npy")),
        ("values that are NaN or infinite", in_array(f"{CACHE}/train-*.npy", lambda x: put(x, 5, NAN))),
        ("utterances", both(NO_MIXTURES, in_table(INDEX, lambda t: t.iloc[:0]))),
        ("ids", in_table(INDEX, lambda t: column("id", 0, t["id"][1])(t))),
        ("the same utterances as the mixtures", in_table(INDEX, lambda t: t.iloc[1:])),
        ("the same utterances as the mixtures", in_table(INDEX, column("id", 0, "stranger"))),
        ("splits of the mixtures", in_table(INDEX, column("split", 0, "valid"))),
        ("samples of the mixtures", in_table(INDEX, column("n_samples", 0, 99))),
        ("frames by length", in_table(INDEX, column("n_frames", 0, 99))),
        ("one behind the other", in_table(INDEX, column("frame", 1, 7))),
        ("their file is listed", in_table(INDEX, column("shard", 0, "train-9.npy"))),
        ("inside their file", in_table(INDEX, column("frame", 2, 300))),
        ("utterances computed again", limits("cache", sample_utterances=0)),
        ("same as computed again (dB)", in_array(f"{CACHE}/train-*.npy", lambda x: x * 1.01)),
        ("same as computed again (dB)", in_array(f"{CACHE}/valid-*.npy", lambda x: x[::-1])),
    ],
    "checkpoint": [
        ("weights and description can be read", delete(f"{BEST}/weights.safetensors")),
        ("weights and description can be read", delete(f"{BEST}/checkpoint.json")),
        ("weights and description can be read", write(f"{BEST}/weights.safetensors", "\x80\x04 junk")),
        ("nothing but weights and description", write(f"{BEST}/network.pt", "")),
        ("checksum of the weights", in_weights(lambda w: w | {"bias": w["bias"] + 1}, with_checksum=False)),
        ("of this recipe and corpus", in_json(f"{BEST}/checkpoint.json", trained_on="other")),
        ("trained on the present mixtures", in_manifest(gender="f")),
        ("weights that are NaN or infinite", in_weights(lambda w: w | {"bias": w["bias"] * NAN})),
        ("parameters as stated (apart)", in_weights(lambda w: {"weight": w["weight"]})),
        ("losses", delete(HISTORY)),
        ("losses", in_table(HISTORY, lambda t: t.iloc[:0])),
        ("losses are finite", in_table(HISTORY, column("loss", 3, ""))),
        ("losses are finite", in_table(HISTORY, column("loss", 3, "inf"))),
        ("gradient norms are finite", in_table(HISTORY, column("grad_norm", 3, "nan"))),
        ("steps left to train", in_json(f"models/{SYSTEM}/last/checkpoint.json", step=11)),
        ("last losses over first", in_table(HISTORY, lambda t: t.iloc[::-1])),
    ],
    "enhanced": [
        ("utterances", both(NO_MIXTURES, rows_of_manifest("enhanced", lambda t: t.iloc[:0]))),
        ("ids", in_manifest("enhanced", id=lambda ids: [ids[1], *ids[1:]])),
        ("the utterances of the test split", rows_of_manifest("enhanced", lambda t: t.iloc[1:])),
        ("the utterances of the test split", in_manifest("enhanced", id="stranger")),
        ("as long as the input (samples apart)", in_audio(enhanced_of, lambda wave: wave[:, :-1])),
        ("rate of the input (Hz apart)", in_manifest("enhanced", rate=48000)),
        ("shards are there", delete(f"{ENHANCED}/*.flac")),
        ("checksums match", in_audio(enhanced_of, lambda wave: wave * 0.99, keep_checksum=True)),
        ("finite samples", in_manifest("enhanced", gain=NAN)),
        ("finite samples", in_manifest("enhanced", gain=0.0)),
        ("no silence out of sound", in_audio(enhanced_of, lambda wave: wave * 0)),
        ("level over input (dB)", in_manifest("enhanced", gain=1e-3)),
        ("level over input (dB)", in_audio(enhanced_of, lambda wave: wave * 2**-11)),
        ("network evaluations", in_manifest("enhanced", evaluations=0)),
        ("of this system and corpus", in_json(f"{ENHANCED}/enhanced.json", system="score.toy")),
        ("made from the present mixtures", in_manifest(gender="f")),
        ("made with the present checkpoint", in_weights(lambda w: w | {"bias": w["bias"] + 1})),
    ],
    "metrics": [
        ("files scored", in_table(CSV, lambda t: t.iloc[:0])),
        ("ids", in_table(CSV, lambda t: column("id", 0, t["id"][1])(t))),
        ("the files of the test split", in_table(CSV, lambda t: t.iloc[1:])),
        ("the files of the test split", in_table(CSV, column("id", 0, "stranger"))),
        ("missing values without a reason", in_table(CSV, column("estoi", 0, ""))),
        ("missing values without a reason", in_table(CSV, column("estoi_reason", 0, "but it has a value"))),
        ("si_sdr: values", in_table(CSV, lambda t: t.assign(si_sdr="", si_sdr_reason="silent"))),
        ("si_sdr: values", in_table(CSV, lambda t: t.drop(columns="si_sdr"))),
        ("si_sdr: range", in_table(CSV, column("si_sdr", 0, "inf"))),
        ("estoi: values", in_table(CSV, column("estoi", 0, "nan"))),
        ("estoi: range", in_table(CSV, column("estoi", 0, "1.01"))),
        ("every metric is in the summary", in_json(SUMMARY, metrics={})),
        ("counts of the summary (apart)", in_json(SUMMARY, metrics__estoi__n=2)),
        ("means of the summary (apart)", in_json(SUMMARY, metrics__estoi__mean=0.99)),
        ("means of the summary (apart)", in_json(SUMMARY, metrics__estoi__mean=None)),
        ("si_sdr: known score of the input", limits("metrics", input_anchors={"toy": {"si_sdr": 8.19}})),
        ("estoi: known score of the input", limits("metrics", input_anchors={"toy": {"estoi": NAN}})),
        ("estoi: known score of the input", in_table(CSV, lambda t: t.assign(estoi=""))),
    ],
}  # fmt: skip
CASES = [(artifact, rule, fault) for artifact, cases in FAULTS.items() for rule, fault in cases]
