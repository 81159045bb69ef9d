"""Gates: a good artifact passes every rule, and each rule fails on the fault that it is there for."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import tiny
import torch
from gate_faults import (
    CASES,
    CSV,
    INF,
    NAMES,
    NAN,
    SYSTEM,
    column,
    delete,
    enhanced_of,
    in_audio,
    in_manifest,
    in_table,
    write,
)

from diffse import checkpoint, paths, settings, storage
from diffse.data import manifest, shards, stft_cache
from diffse.data.corpora import registry
from diffse.errors import DiffseError, GateFailed
from diffse.metrics import evaluate, table
from diffse.validation import checkpoint as checkpoint_gate
from diffse.validation import enhanced, gate, judge, measures, metrics, mixtures
from diffse.validation.rules import Subject, Table

# ----------------------------------------------------------------------------------------- a good project


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> tuple[Path, settings.Params]:
    """A project with every artifact, each in order."""
    root = tmp_path_factory.mktemp("good")
    params = tiny.make_project(root)
    write_system(root)
    write_enhanced(root)
    evaluate.run(params, "unprocessed", "toy", root)
    scores = json.loads((root / "results/unprocessed/toy/summary.json").read_text())["metrics"]
    anchors = {"toy": {name: entry["mean"] for name, entry in scores.items()}}
    rules = dataclasses.replace(params.check.metrics, input_anchors=anchors)
    return root, dataclasses.replace(params, check=dataclasses.replace(params.check, metrics=rules))


def write_system(root: Path) -> None:
    """models/bridge.toy as training leaves it, with a network of 15 parameters."""
    folder = paths.model(root, SYSTEM)
    data_version = storage.sha256_file(paths.mixtures(root, "toy") / "manifest.parquet")
    description = {
        "recipe": "bridge", "trained_on": "toy", "step": 20, "parameters": 15, "train": {"steps": 20},
        "stft": {}, "enhance": {}, "data_version": data_version,
    }  # fmt: skip
    for name in ("best", "last"):
        checkpoint.save(folder / name, torch.nn.Linear(4, 3), description)
    with open(folder / "history.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["step", "loss", "grad_norm", "lr"])
        writer.writerows([step, 1 / step, 0.1, 0.001] for step in range(1, 21))


def write_enhanced(root: Path) -> None:
    """enhanced/bridge.toy/toy: the noisy test split at half its level, two of them stored with a gain."""
    source, folder = paths.mixtures(root, "toy"), paths.enhanced(root, SYSTEM, "toy")
    rows = manifest.read(source)
    items = []
    folder.mkdir(parents=True)
    with shards.ShardWriter(folder, 16000, 1) as writer:
        for number, row in enumerate(rows[rows["split"] == "test"].to_dict("records")):
            wave, gain = shards.read_pair(source, row)[1] / 2, (1.0, 0.5)[number % 2]
            placed = writer.add(wave[None] * gain) | {"gain": gain}
            facts = {"peak": 0.5, "level_dbfs": -20.0, "noisy_dbfs": row["noisy_dbfs"], "compute_seconds": 0.1}
            items.append({"id": row["id"], "rate": 16000, "evaluations": 1} | facts | placed)
    manifest.write(pandas.DataFrame(items), folder, manifest.ENHANCED_COLUMNS)
    description = {
        "system": SYSTEM, "corpus": "toy", "recipe": "bridge", "trained_on": "toy", "real_time_factor": 0.1,
        "mixtures_sha256": storage.sha256_file(source / "manifest.parquet"),
        "checkpoint_sha256": storage.sha256_file(paths.model(root, SYSTEM) / "best/weights.safetensors"),
    }  # fmt: skip
    storage.write_json(folder / "enhanced.json", description)


@pytest.fixture
def project(good, tmp_path) -> tuple[Path, settings.Params]:
    """A copy of the good project, to be damaged."""
    root, params = good
    shutil.copytree(root, tmp_path / "project", symlinks=True)
    return tmp_path / "project", params


# A table that lacks a system's checkpoints cannot be planted: the gate itself lays it out.
WITHOUT_FAULT = {("checkpoint", "checkpoints")}


def subject_of(params, artifact, root) -> Subject:
    module = __import__(f"diffse.validation.{artifact}", fromlist=["subject"])
    return module.subject(params, NAMES[artifact], root)


@pytest.mark.parametrize(("artifact", "rule", "fault"), CASES, ids=[f"{a}-{r}" for a, r, _ in CASES])
def test_the_rule_finds_the_fault(project, artifact, rule, fault):
    root, params = project
    if fault.__qualname__.startswith("limits"):
        params = fault(root, params)
    else:
        fault(root)
    subject = subject_of(params, artifact, root)
    subject.rules = [entry for entry in subject.rules if entry.name == rule]
    (outcome,) = judge.judge(subject)
    assert not outcome.success
    assert outcome.failed_count >= 1
    assert outcome.observed


@pytest.mark.parametrize("artifact", NAMES)
def test_a_good_artifact_passes_every_rule(good, artifact):
    root, params = good
    result = gate.run(params, artifact, NAMES[artifact], root)
    written = json.loads((root / result["gate"]).read_text())
    assert written["success"] is result["success"] is True
    assert {entry["success"] for entry in written["rules"]} == {True}
    assert all(entry["expectations"] and entry["remedy"] and entry["limit"] for entry in written["rules"])
    assert all(storage.sha256_file(root / name) == digest for name, digest in written["inputs"].items())
    # every rule has been shown to fail
    rules = {(artifact, entry["rule"]) for entry in written["rules"]}
    assert rules - WITHOUT_FAULT == {(name, rule) for name, rule, _ in CASES if name == artifact}


def test_fixed_values_beside_the_parameters_are_no_fault(project):
    """MP-ADM keeps the frequencies of its noise label as buffers: more values than parameters."""
    root, params = project
    network = torch.nn.Linear(4, 3)
    network.register_buffer("frequencies", torch.randn(320))
    for name in ("best", "last"):
        description = checkpoint.describe(paths.model(root, SYSTEM) / name)
        checkpoint.save(paths.model(root, SYSTEM) / name, network, description)
    assert gate.run(params, "checkpoint", NAMES["checkpoint"], root)["success"]


def test_the_waveform_form_of_the_cache_is_judged_by_the_same_rules(project):
    root, params = project
    params = dataclasses.replace(params, cache=dataclasses.replace(params.cache, form="waveform"))
    stft_cache.run(params, "toy", root)
    assert gate.run(params, "cache", ("toy",), root)["success"]
    shard = next(paths.cache(root, "toy").glob("train-*.npy"))
    data = bytearray(shard.read_bytes())
    data[-40_000] ^= 0x40
    shard.write_bytes(data)
    with pytest.raises(GateFailed, match="checksums match"):
        gate.run(params, "cache", ("toy",), root)


def test_a_gate_writes_the_same_bytes_again(good):
    root, params = good
    gate.run(params, "mixtures", ("toy",), root)
    before = (root / "gates/mixtures/toy.json").read_bytes()
    gate.run(params, "mixtures", ("toy",), root)
    assert (root / "gates/mixtures/toy.json").read_bytes() == before


def test_a_failing_gate_says_what_and_keeps_everything(project):
    root, params = project
    in_manifest(seconds=75.0, clipped=lambda values: [0.5] * len(values))(root)
    folder = paths.mixtures(root, "toy")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(GateFailed) as failure:
        gate.run(params, "mixtures", ("toy",), root)
    lines = str(failure.value).splitlines()
    ids = manifest.read(folder)["id"].tolist()
    assert failure.value.exit_code == 1
    assert lines[0] == (
        f"mixtures toy: duration (s): 1 of 9 fail ({ids[0]}); found 1 to 75, allowed 0.3 to 60; to do: "
        "leave these recordings out or cut them, or change check.mixtures.min_seconds and max_seconds"
    )
    assert [line.split(": ")[1] for line in lines] == ["duration (s)", "samples as stated", "clipping"]
    assert f"9 of 9 fail ({', '.join(ids[:5])}, ...)" in lines[2]
    written = json.loads((root / "gates/mixtures/toy.json").read_text())
    assert written["success"] is False
    broken = [entry for entry in written["rules"] if not entry["success"] and entry["severity"] == "error"]
    assert [entry["examples"] for entry in broken] == [
        ids[:1],
        ids[:1],
        ids[:5],
    ]
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("artifact", "fault"),
    [
        ("mixtures", write("data/toy/mixtures/manifest.parquet", "junk")),
        ("mixtures", delete("data/toy/mixtures/manifest.parquet")),
        ("cache", delete("data/toy/cache/cache.json")),
        ("cache", write("data/toy/cache/index.parquet", "junk")),
        ("cache", write("data/toy/cache/cache.json", '{"format": 1}')),
        ("checkpoint", lambda root: shutil.rmtree(root / "models")),
        ("enhanced", delete("enhanced/*/*/enhanced.json")),
        ("metrics", write("results/unprocessed/toy/summary.json", "{")),
        ("metrics", delete("results/*/*/per_file.csv")),
        ("metrics", in_table(CSV, column("estoi", 0, "high"))),
    ],
)
def test_what_cannot_be_read_fails_its_gate(project, artifact, fault):
    root, params = project
    fault(root)
    with pytest.raises(GateFailed) as failure:
        gate.run(params, artifact, NAMES[artifact], root)
    assert len(str(failure.value).splitlines()) == 1
    assert str(root) in str(failure.value)
    written = json.loads(paths.gate(root, artifact, *NAMES[artifact]).read_text())
    assert written["success"] is False
    assert written["rules"][0]["rule"] == "can be read"


@pytest.mark.parametrize(
    ("artifact", "names", "said"),
    [
        ("data", ("toy",), "'data' has no gate (allowed: mixtures"),
        ("mixtures", (), "needs corpus"),
        ("enhanced", (SYSTEM,), "needs system and corpus"),
        ("mixtures", ("else",), "'else' has no entry under 'prepare' (there: toy)"),
        ("checkpoint", ("bridge",), "'bridge' is not a system"),
        ("checkpoint", ("unprocessed",), "'unprocessed' is not a system"),
    ],
)
def test_wrong_names_are_refused(good, artifact, names, said):
    root, params = good
    with pytest.raises(DiffseError) as error:
        gate.run(params, artifact, names, root)
    assert said in str(error.value)
    assert not isinstance(error.value, GateFailed)


# ------------------------------------------------------------------------------------------ single pieces


def judged(rule, **columns):
    frame = pandas.DataFrame({"id": [f"u{n}" for n in range(len(next(iter(columns.values()))))], **columns})
    (outcome,) = judge.judge(Subject({"t": frame}, [rule]))
    return outcome


def test_empty_and_missing_values_are_no_success():
    """Great Expectations itself passes a range over nothing."""
    table = Table("t")
    assert not judged(table.within("r", "x", 0, 1, ""), x=[NAN, NAN]).success
    assert not judged(table.within("r", "x", 0, 1, ""), x=[0.5, NAN]).success
    assert not judged(table.within("r", "absent", 0, 1, ""), x=[0.5]).success
    assert not judged(table.true("r", "x", ""), x=[True, None]).success
    assert not judged(table.mean("r", "x", 0, 1, ""), x=[NAN, NAN]).success
    assert not judged(table.rows("r", 1, ""), x=[]).success
    assert judged(table.within("r", "x", 0, 1, "", missing=0.5), x=[0.5, NAN]).success
    assert not judged(table.within("r", "x", 0, 1, "", missing=0.4), x=[0.5, NAN]).success


def test_outcomes_name_the_first_rows_that_fail():
    outcome = judged(Table("t").within("r", "x", 0, 1, ""), x=[5.0, 0.5, NAN, INF, 2.0, 3.0, 4.0, 6.0])
    assert outcome.examples == ["u0", "u2", "u3", "u4", "u5"]
    assert outcome.failed_count == 7
    assert outcome.observed == "0.5 to inf, 1 missing"


def test_unknown_speakers_and_rooms_are_not_leaks():
    frame = pandas.DataFrame({"split": ["train", "test", "train", "test"], "room": ["", "", "hall", "hall"]})
    assert mixtures.splits_per_value(frame, "room").tolist() == [1, 1, 2, 2]


def test_ready_pairs_need_no_snr_that_was_asked_for(good):
    root, params = good
    pairs = dataclasses.replace(params.prepare["toy"], layout="pairs", pairs_split="test")
    assert registry.expected_splits(pairs) == ("test",)
    changed = dataclasses.replace(params, prepare={"toy": pairs})
    names = [rule.name for rule in mixtures.subject(changed, ("toy",), root).rules]
    assert "SNR as asked for (dB apart)" not in names
    assert "SNR as stated (dB apart)" in names


def test_splits_that_the_settings_promise():
    folder = settings.FolderCorpus()
    assert registry.expected_splits(settings.DemoCorpus()) == ("train", "valid", "test")
    assert registry.expected_splits(folder) == ("train", "valid", "test")
    assert registry.expected_splits(dataclasses.replace(folder, speaker_shares=(0, 0, 1))) == ("test",)
    lists = settings.SplitLists(train="a.txt", test="b.txt")
    assert registry.expected_splits(dataclasses.replace(folder, clean_lists=lists)) == ("train", "test")


@pytest.mark.parametrize(("pretrain_steps", "passes"), [(12, True), (0, False)])
def test_losses_of_a_predictor_alone_are_not_compared_with_the_later_ones(project, pretrain_steps, passes):
    """The loss of a score network is of another scale than that of the predictor that is trained first."""
    root, params = project
    folder = paths.model(root, SYSTEM)
    rows = [[step, 1 / step if step <= 12 else 5000 / step, 0.1, 0.001] for step in range(1, 21)]
    with open(folder / "history.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["step", "loss", "grad_norm", "lr"], *rows])
    description = storage.read_json(folder / "last/checkpoint.json")
    description["train"]["predictor"] = {"pretrain_steps": pretrain_steps}
    storage.write_json(folder / "last/checkpoint.json", description)
    if passes:
        assert gate.run(params, "checkpoint", NAMES["checkpoint"], root)["success"]
    else:
        with pytest.raises(GateFailed, match="last losses over first"):
            gate.run(params, "checkpoint", NAMES["checkpoint"], root)


def test_loss_ratio_is_that_of_medians():
    losses = np.linspace(2, 1, 100)
    losses[[3, 97]] = 1e9
    assert checkpoint_gate.loss_ratio(losses) == pytest.approx(1.045 / 1.955, rel=0.02)
    assert np.isnan(checkpoint_gate.loss_ratio(np.array([])))


def test_snapshots_that_an_average_was_made_of_are_compared(project):
    root, params = project
    snapshot, described = paths.model(root, SYSTEM) / "snapshots/ema-1.safetensors", root / "enhanced" / SYSTEM
    snapshot.parent.mkdir()
    snapshot.write_bytes(b"weights")
    path = described / "toy/enhanced.json"
    facts = json.loads(path.read_text()) | {"ema": 0.05}
    storage.write_json(
        path, facts | {"snapshots_sha256": {f"snapshots/{snapshot.name}": storage.sha256_file(snapshot)}}
    )
    assert gate.run(params, "enhanced", NAMES["enhanced"], root)["success"]
    for change in (lambda: snapshot.write_bytes(b"weighty"), snapshot.unlink):
        change()
        with pytest.raises(GateFailed, match="made with the present checkpoint"):
            gate.run(params, "enhanced", NAMES["enhanced"], root)


def test_silence_out_of_silence_is_right(project):
    root, params = project
    in_audio(enhanced_of, lambda wave: wave * 0)(root)
    in_manifest(noisy_dbfs=lambda values: [-INF] * len(values))(root)
    outcomes = judge.judge(subject_of(params, "enhanced", root))
    broken = {outcome.rule.name for outcome in outcomes if not outcome.success}
    assert broken == {"made from the present mixtures"}


def test_many_utterances_are_measured_by_several_processes(good, monkeypatch):
    root, params = good
    for module, artifact in ((measures, "mixtures"), (enhanced, "enhanced")):
        alone = subject_of(params, artifact, root).tables["utterances"]
        (root / "data/toy/measures.parquet").unlink(missing_ok=True)
        monkeypatch.setattr(module, "_ALONE", 0)
        pandas.testing.assert_frame_equal(subject_of(params, artifact, root).tables["utterances"], alone)


def test_great_expectations_is_loaded_by_the_gate_alone(good):
    """It takes seconds to import, and no other step waits for it."""
    code = (
        "import sys; import diffse.validation.gate, diffse.validation.mixtures, diffse.validation.metrics, "
        "diffse.metrics.evaluate; assert 'great_expectations' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.mark.parametrize("complete", [True, False])
def test_known_scores_are_those_of_the_whole_corpus(complete):
    corpora = {"vbd": settings.VoiceBankDemand(complete=complete)}
    params = settings.Params(("vbd",), (), (), corpora, {}, {})
    rules = metrics._anchor_rules(params, "vbd", table.columns(("pesq", "estoi", "si_sdr")))
    assert bool(rules) is complete
