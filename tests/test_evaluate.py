"""The step `evaluate`: joins by id, the same bytes whatever the processes, gaps with reasons."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas
import pytest
import tiny

from diffse import paths, settings, storage
from diffse.data import manifest, prepare, shards
from diffse.errors import DiffseError
from diffse.metrics import evaluate

RATE = 16000
SYSTEM = "bridge.toy"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[Path, settings.Params]:
    """A corpus of synthesised speech, and its test split 'enhanced': half of the noise taken away."""
    root = tmp_path_factory.mktemp("evaluate")
    tiny.make_sources(root)
    params = tiny.write_params(root)
    prepare.run(params, "toy", root)
    write_enhanced(root, lambda clean, noisy: (clean + noisy) / 2)
    return root, params


def write_enhanced(root: Path, system, lengths: int = 0) -> None:
    source, folder = paths.mixtures(root, "toy"), paths.enhanced(root, SYSTEM, "toy")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = manifest.read(source)
    items = []
    with shards.ShardWriter(folder, RATE, 1) as writer:
        for row in rows[rows["split"] == "test"].to_dict("records")[::-1]:  # joined by id, not by order
            wave = system(*shards.read_pair(source, row))
            wave = wave[: len(wave) - lengths]
            facts = {"rate": RATE, "peak": 1.0, "level_dbfs": 0.0, "noisy_dbfs": 0.0, "evaluations": 1}
            placed = writer.add(wave[None] * np.float32(0.25)) | {"gain": 0.25}
            items.append({"id": row["id"], "compute_seconds": 0.0} | facts | placed)
    manifest.write(pandas.DataFrame(items), folder, manifest.ENHANCED_COLUMNS)
    description = {
        "recipe": "bridge", "trained_on": "toy", "real_time_factor": 0.5, "evaluations": 7, "parameters": 9,
        "sampler": {"name": "bridge_ode"}, "mixtures_sha256": storage.sha256_file(source / "manifest.parquet"),
    }  # fmt: skip
    storage.write_json(folder / "enhanced.json", description)


@pytest.fixture
def copy(prepared, tmp_path) -> tuple[Path, settings.Params]:
    root, params = prepared
    shutil.copytree(root, tmp_path / "project")
    return tmp_path / "project", params


def results(root: Path, system: str) -> tuple[pandas.DataFrame, dict]:
    folder = paths.results(root, system, "toy")
    return pandas.read_csv(folder / "per_file.csv"), json.loads((folder / "summary.json").read_text())


def test_the_unprocessed_test_pairs_score_what_is_known(corpus, tmp_path):
    """21 VoiceBank-DEMAND test pairs: PESQ 2.248, ESTOI 0.823, SI-SDR 8.19 dB."""
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "vbd").symlink_to(corpus)
    ready = settings.FolderCorpus(layout="pairs", pairs_list="splits/pairs_vbd_test_subset.txt", processes=1)
    chosen = settings.Evaluate(metrics=("pesq", "estoi", "si_sdr"), processes=2)
    params = settings.Params(("vbd",), (), (), {"vbd": ready}, {}, {}, evaluate=chosen)
    prepare.run(params, "vbd", tmp_path)
    result = evaluate.run(params, "unprocessed", "vbd", tmp_path)
    assert result["files"] == 21
    assert result["means"]["pesq"] == pytest.approx(2.248, abs=5e-4)
    assert result["means"]["estoi"] == pytest.approx(0.823, abs=5e-4)
    assert result["means"]["si_sdr"] == pytest.approx(8.19, abs=5e-3)
    assert set(result["missing"].values()) == {0}


def test_taking_half_of_the_noise_away_gains_six_decibels(copy):
    root, params = copy
    for system in ("unprocessed", SYSTEM):
        evaluate.run(params, system, "toy", root)
    (noisy, of_noisy), (enhanced, of_enhanced) = results(root, "unprocessed"), results(root, SYSTEM)
    rows = manifest.read(paths.mixtures(root, "toy"))
    assert noisy["id"].tolist() == enhanced["id"].tolist() == sorted(rows.loc[rows["split"] == "test", "id"])
    np.testing.assert_allclose(enhanced["si_sdr"] - noisy["si_sdr"], 20 * np.log10(2), atol=0.05)
    assert noisy["snr_db"].tolist() == pytest.approx(noisy["si_sdr"].tolist(), abs=0.5)
    assert (noisy["noise_kind"] == "white").all()
    assert (noisy["speaker"] == "test_speaker").all()
    described = {
        "recipe": "bridge",
        "trained_on": "toy",
        "real_time_factor": 0.5,
        "evaluations": 7,
        "parameters": 9,
    }
    assert of_enhanced.items() >= (described | {"files": 3, "sampler": {"name": "bridge_ode"}}).items()
    assert of_noisy.items() >= (dict.fromkeys(described) | {"system": "unprocessed", "sampler": None}).items()
    entry = of_enhanced["metrics"]["si_sdr"]
    assert entry["mean"] == pytest.approx(enhanced["si_sdr"].mean(), abs=1e-6)
    assert entry["std"] == pytest.approx(enhanced["si_sdr"].std(ddof=0), abs=1e-6)
    assert entry["low"] < entry["mean"] < entry["high"]
    assert (entry["n"], entry["missing"], entry["reasons"], entry["unit"], entry["rate"]) == (
        3,
        0,
        {},
        "dB",
        RATE,
    )
    assert of_enhanced["metrics"]["estoi"]["rate"] == 10000


def test_the_number_of_processes_changes_no_byte(copy):
    root, params = copy
    written = []
    for processes in (1, 2):
        changed = dataclasses.replace(
            params, evaluate=dataclasses.replace(params.evaluate, processes=processes)
        )
        evaluate.run(changed, SYSTEM, "toy", root)
        folder = paths.results(root, SYSTEM, "toy")
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {"per_file.csv", "summary.json"}


def test_a_file_that_cannot_be_scored_is_a_gap_with_a_reason(copy, caplog):
    root, params = copy
    calls = iter([0, 1, 1])
    write_enhanced(root, lambda clean, noisy: noisy * next(calls))
    result = evaluate.run(params, SYSTEM, "toy", root)
    scores, summary = results(root, SYSTEM)
    assert result["missing"] == {"si_sdr": 1, "estoi": 1}
    assert scores["si_sdr"].isna().tolist() == [False, False, True]
    assert scores["si_sdr_reason"].tolist()[2] == "enhanced signal is silent"
    assert scores["si_sdr_reason"].isna().tolist() == [True, True, False]
    entry = summary["metrics"]["si_sdr"]
    assert (entry["n"], entry["missing"], entry["reasons"]) == (2, 1, {"enhanced signal is silent": 1})
    assert entry["mean"] == pytest.approx(scores["si_sdr"].mean(), abs=1e-6)
    assert "si_sdr missing in 1 files: enhanced signal is silent" in caplog.text
    line = (paths.results(root, SYSTEM, "toy") / "per_file.csv").read_text().splitlines()[3]
    assert ",,enhanced signal is silent," in line  # a gap, not a number


def test_nothing_that_can_be_scored_leaves_gaps_everywhere(copy):
    root, params = copy
    write_enhanced(root, lambda clean, noisy: noisy * 0)
    evaluate.run(params, SYSTEM, "toy", root)
    _, summary = results(root, SYSTEM)
    entry = summary["metrics"]["si_sdr"]
    assert (entry["mean"], entry["std"], entry["low"], entry["high"], entry["n"]) == (None, None, None, None, 0)


def test_ids_and_lengths_must_be_those_of_the_test_split(copy):
    root, params = copy
    folder = paths.enhanced(root, SYSTEM, "toy")
    whole = manifest.read(folder, manifest.ENHANCED_COLUMNS)
    first = whole["id"][0]
    manifest.write(whole.iloc[1:], folder, manifest.ENHANCED_COLUMNS)
    with pytest.raises(DiffseError, match=rf"1 utterances of the test split are not there \({first}\)"):
        evaluate.run(params, SYSTEM, "toy", root)
    stranger = pandas.concat([whole, whole.iloc[:1].assign(id="stranger")])
    manifest.write(stranger, folder, manifest.ENHANCED_COLUMNS)
    with pytest.raises(DiffseError, match=r"1 utterances are not in the test split \(stranger\)"):
        evaluate.run(params, SYSTEM, "toy", root)
    write_enhanced(root, lambda clean, noisy: noisy, lengths=1)
    with pytest.raises(DiffseError, match="3 utterances have another length than their mixture"):
        evaluate.run(params, SYSTEM, "toy", root)
    assert not paths.results(root, SYSTEM, "toy").exists()


def test_audio_enhanced_from_other_mixtures_is_refused(copy):
    root, params = copy
    folder = paths.mixtures(root, "toy")
    manifest.write(manifest.read(folder).assign(gender="f"), folder)
    with pytest.raises(DiffseError, match="enhanced from other mixtures"):
        evaluate.run(params, SYSTEM, "toy", root)


def test_a_corpus_without_test_split_is_refused(copy):
    root, params = copy
    folder = paths.mixtures(root, "toy")
    rows = manifest.read(folder)
    manifest.write(rows[rows["split"] != "test"], folder)
    with pytest.raises(DiffseError, match="no utterances in the test split"):
        evaluate.run(params, "unprocessed", "toy", root)


def test_an_absent_system_is_named(copy):
    root, params = copy
    with pytest.raises(DiffseError, match=r"enhanced\.json: no such file; run the stage"):
        evaluate.run(params, "score.toy", "toy", root)
