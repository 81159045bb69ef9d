"""A small complete project with synthetic audio, for the tests of the report, and ways to read its page."""

import html.parser
import math
from pathlib import Path

import numpy as np
import pandas

from diffse import paths, settings, storage
from diffse.data import manifest, shards
from diffse.metrics import statistics

RATE = 16000
METRICS = (
    "si_sdr",
    "pesq",
    "estoi",
    "dnsmos_ovrl",
    "dnsmos_sig",
    "dnsmos_bak",
    "dnsmos_p808",
    "si_sir",
    "si_sar",
)
GOOD, BAD = "bridge_small.demo", "sgmse_small.demo"
FILES = 9
NASTY = '<img src=x onerror=alert(1)>"&'  # as an id

PARAMS = """
corpora: [demo, pairs]
train_corpora: [demo]
recipes: [sgmse_small, bridge_small]
prepare: {demo: {kind: demo}, pairs: {kind: folder, layout: pairs}}
train:
  sgmse_small: {paper: ignored, process: {name: ouve}, objective: {name: score_matching}}
  bridge_small: {paper: ignored, process: {name: sbve}, objective: {name: data_prediction}}
enhance:
  sgmse_small: {sampler: {name: pc, steps: 15}}
  bridge_small: {sampler: {name: bridge_ode, steps: 1}}
evaluate: {bootstrap: 300}
report: {title: "A report & more", listen_files: 3, max_seconds: 1.5}
"""


# ------------------------------------------------------------------------------------ a small project


def speech(generator: np.random.Generator, seconds: float) -> np.ndarray:
    """Something with syllables and harmonics, [n]."""
    t = np.arange(round(seconds * RATE)) / RATE
    pitch = 120 + 60 * generator.random() + 20 * np.sin(2 * np.pi * 1.5 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    tone = sum(np.sin(k * phase) / k for k in range(1, 25))
    return (0.1 * tone * np.maximum(0, np.sin(2 * np.pi * 2.5 * t)) ** 0.5).astype(np.float32)


def make_mixtures(root: Path, corpus: str, seed: int) -> tuple[pandas.DataFrame, dict]:
    """Write mixtures of FILES test files; returns the manifest and {id: (clean, noisy)}."""
    generator = np.random.default_rng(seed)
    rows, waves = [], {}
    with (
        storage.atomic_folder(paths.mixtures(root, corpus)) as folder,
        shards.ShardWriter(folder, RATE, 2) as writer,
    ):
        for index in range(FILES):
            item = NASTY if index == 2 and corpus == "demo" else f"{corpus}_{index:03d}"
            clean = speech(generator, 1.0 + 0.2 * index)
            snr = float(generator.uniform(0, 10))
            noise = generator.standard_normal(len(clean)).astype(np.float32)
            noise *= np.sqrt(np.mean(clean**2) / np.mean(noise**2)) * 10 ** (-snr / 20)
            waves[item] = (clean, clean + noise)
            stored = writer.add(np.stack(waves[item]))
            rows.append(manifest_row(corpus, item, snr, len(clean)) | stored)
        manifest.write(pandas.DataFrame(rows), folder)
        (folder / "rejected.csv").write_text("file,reason\nempty.wav,is empty (0 bytes)\n")
    return pandas.DataFrame(rows), waves


def manifest_row(corpus: str, item: str, snr: float, samples: int) -> dict:
    texts = {name: "" for name, kind in manifest.COLUMNS.items() if kind == "string"}
    numbers = {name: 0 for name, kind in manifest.COLUMNS.items() if kind == "int64"}
    rest = {name: 0.5 for name, kind in manifest.COLUMNS.items() if kind == "float64"}
    own = {"id": item, "corpus": corpus, "split": "test", "speaker": "anna", "noise_kind": "white"}
    own |= {"snr_db": snr, "snr_measured_db": snr, "n_samples": samples, "seconds": samples / RATE}
    return texts | numbers | rest | own | {"rate": RATE, "finite": True, "gain": 1.0}


def make_enhanced(root: Path, system: str, corpus: str, waves: dict, left: float) -> dict:
    """Write enhanced audio with `left` of the noise; returns {id: wave}."""
    result = {item: clean + left * (noisy - clean) for item, (clean, noisy) in waves.items()}
    with (
        storage.atomic_folder(paths.enhanced(root, system, corpus)) as folder,
        shards.ShardWriter(folder, RATE, 1) as writer,
    ):
        rows = []
        for item, wave in result.items():
            facts = {"id": item, "rate": RATE, "peak": 0.5, "level_dbfs": -20.0, "noisy_dbfs": -20.0}
            rows.append(facts | {"evaluations": 1, "compute_seconds": 0.1} | writer.add(wave[np.newaxis]))
        manifest.write(pandas.DataFrame(rows), folder, manifest.ENHANCED_COLUMNS)
        source = storage.sha256_file(paths.mixtures(root, corpus) / manifest.FILE)
        described = {"system": system, "sampler": {"name": "bridge_ode", "steps": 1}, "mixtures_sha256": source}
        storage.write_json(folder / "enhanced.json", described)
    return result


def si_sdr(reference: np.ndarray, estimate: np.ndarray) -> float:
    target = np.dot(estimate, reference) / np.dot(reference, reference) * reference
    return float(10 * np.log10(np.sum(target**2) / np.sum((estimate - target) ** 2)))


def make_results(root: Path, system: str, corpus: str, table: pandas.DataFrame) -> None:
    """Write per_file.csv and summary.json from a table of id, speaker, noise_kind, snr_db and metrics."""
    folder = paths.results(root, system, corpus)
    folder.mkdir(parents=True)
    frame, metrics = table.copy(), {}
    for name in METRICS:
        reason = "no reference" if name == "si_sar" else "no utterances detected"
        frame[f"{name}_reason"] = [reason if math.isnan(value) else "" for value in frame[name]]
        values = frame[name].dropna().to_numpy()
        missing = int(frame[name].isna().sum())
        mean = float(values.mean()) if len(values) else None
        low, high = statistics.interval(values, 0.95, 200, 0) if len(values) > 1 else (None, None)
        metrics[name] = {"mean": mean, "low": low, "high": high, "n": len(values), "missing": missing}
        metrics[name] |= {"std": 1.0, "reasons": {reason: missing} if missing else {}, "rate": RATE}
        metrics[name] |= {"unit": "dB" if name.startswith("si_") else "", "version": "pesq 0.0.4"}
    frame.to_csv(folder / "per_file.csv", index=False)
    plain = system == paths.UNPROCESSED
    described = {"system": system, "corpus": corpus, "files": len(frame), "metrics": metrics}
    described |= {"real_time_factor": None if plain else 0.1234, "evaluations": None if plain else 30}
    described |= {"parameters": None if plain else 1523456, "sampler": None}
    storage.write_json(folder / "summary.json", described)


def score_table(rows: pandas.DataFrame, waves: dict, estimates: dict, shift: float) -> pandas.DataFrame:
    """Real SI-SDR, and other scores that follow it."""
    table = rows[["id", "speaker", "noise_kind", "snr_db"]].copy()
    table["si_sdr"] = [si_sdr(waves[item][0], estimates[item]) for item in table["id"]]
    for place, name in enumerate(METRICS[1:]):
        table[name] = 1.5 + place / 10 + table["snr_db"] / 10 + shift
    table["estoi"] /= 4
    return table


def make_model(root: Path, system: str, paper: str) -> None:
    folder = paths.model(root, system)
    (folder / "best").mkdir(parents=True)
    recipe, corpus = paths.split_system(system)
    described = {"format": 1, "recipe": recipe, "trained_on": corpus, "step": 900, "parameters": 1523456}
    described |= {"train": {"paper": paper, "batch": 2, "lr": 0.001}, "weights_sha256": "ab" * 32}
    described |= {"code_version": {"package": "0.1.0", "commit": "c0ffee" * 6, "dirty": False}}
    described["data_version"] = storage.sha256_file(paths.mixtures(root, corpus) / manifest.FILE)
    storage.write_json(folder / "best" / "checkpoint.json", described)
    generator = np.random.default_rng(5)
    steps = np.arange(1, 901)
    loss = 50 * steps**-0.4 * np.exp(0.3 * generator.standard_normal(900))
    pandas.DataFrame({"step": steps, "loss": loss, "grad_norm": 1.0, "lr": 1e-3}).to_csv(
        folder / "history.csv", index=False
    )
    validation = {
        "step": [300, 600, 900],
        "si_sdr": [4.0, 6.5, 8.0],
        "pesq": [1.4, 1.6, 1.7],
        "estoi": [0.6, 0.7, 0.72],
    }
    pandas.DataFrame(validation).to_csv(folder / "validation.csv", index=False)


def make_gates(root: Path) -> None:
    passed = {
        "rule": "rate",
        "success": True,
        "observed": 16000,
        "limit": 16000,
        "failed_count": 0,
        "examples": [],
    }
    failed = {"rule": "snr", "success": False, "observed": 0.7, "limit": 0.5, "failed_count": 1}
    failed |= {"examples": [NASTY], "remedy": "Prepare the corpus again."}
    for names, rules in (
        (("mixtures", "demo"), [passed]),
        (("mixtures", "pairs"), [passed, failed]),
        (("metrics", GOOD, "demo"), [passed]),
    ):
        success = all(rule["success"] for rule in rules)
        result = {"artifact": names[0], "name": names[-1], "success": success, "rules": rules}
        storage.write_json(paths.gate(root, *names), result)


def make_project(root: Path) -> settings.Params:
    """A complete project: two corpora, the unprocessed input, a system that helps and one that harms."""
    (root / "params.yaml").write_text(PARAMS)
    for seed, corpus in enumerate(("demo", "pairs")):
        rows, waves = make_mixtures(root, corpus, seed)
        before = score_table(rows, waves, {item: pair[1] for item, pair in waves.items()}, 0.0)
        before["si_sar"] = math.nan
        make_results(root, paths.UNPROCESSED, corpus, before)
        for system, left, shift in ((GOOD, 0.4, 0.3), (BAD, 1.7, -0.2)):
            estimates = make_enhanced(root, system, corpus, waves, left)
            table = score_table(rows, waves, estimates, shift)
            table.loc[3, "pesq"] = math.nan
            make_results(root, system, corpus, table)
    make_model(root, GOOD, "M5 (Schrödinger bridge), small form")
    make_model(root, BAD, "M1 (SGMSE+), small form")
    make_gates(root)
    return settings.load(root / "params.yaml")


def page_of(root: Path) -> str:
    return (root / "report" / "index.html").read_text("utf-8")


class Outline(html.parser.HTMLParser):
    """Collects elements and checks that they are nested."""

    VOID = frozenset({"meta", "link", "img", "br", "wbr", "path", "image"})

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID or (tag == "path" and not self.get_starttag_text().endswith("/>")):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def text_of(page: str) -> str:
    """What a reader sees, with single spaces."""
    parts, skipped = [], 0

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            nonlocal skipped
            skipped += tag in ("style", "script")

        def handle_endtag(self, tag):
            nonlocal skipped
            skipped -= tag in ("style", "script")

        def handle_data(self, data):
            if not skipped:
                parts.append(data)

    Reader().feed(page)
    return " ".join("".join(parts).split())
