"""The step `evaluate`: joins by id, the same bytes whatever the processes, gaps with reasons."""

import dataclasses
import json
import shutil
import sys
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


def test_a_summary_names_what_its_scores_were_made_from(copy):
    root, params = copy
    for system in ("unprocessed", SYSTEM):
        evaluate.run(params, system, "toy", root)
    mixtures, enhanced = paths.mixtures(root, "toy"), paths.enhanced(root, SYSTEM, "toy")
    of_noisy, of_enhanced = (results(root, system)[1]["made_from"] for system in ("unprocessed", SYSTEM))
    assert of_noisy == {"mixtures_sha256": storage.sha256_file(mixtures / "manifest.parquet")}
    assert of_enhanced["mixtures_sha256"] == of_noisy["mixtures_sha256"]
    assert of_enhanced["enhanced_sha256"] == storage.sha256_file(enhanced / "manifest.parquet")
    stated = json.loads((enhanced / "enhanced.json").read_text())
    assert of_enhanced.get("checkpoint_sha256") == stated.get("checkpoint_sha256")


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


# ------------------------------------------------------------------------------------- beyond the signals


def with_columns(root: Path, **columns) -> None:
    """Add columns to the manifest, and enhance what it describes again."""
    path = paths.mixtures(root, "toy") / manifest.FILE
    frame = pandas.read_parquet(path).assign(**columns)
    frame.to_parquet(path, index=False)
    write_enhanced(root, lambda clean, noisy: (clean + noisy) / 2)


def changed(params: settings.Params, **evaluate_changes) -> settings.Params:
    return dataclasses.replace(params, evaluate=dataclasses.replace(params.evaluate, **evaluate_changes))


def test_what_the_manifest_knows_of_a_mixture_stands_beside_its_scores(copy):
    root, params = copy
    with_columns(
        root, gender="f", t60=[0.25 * n for n in range(len(manifest.read(paths.mixtures(root, "toy"))))]
    )
    evaluate.run(params, SYSTEM, "toy", root)
    scores, _ = results(root, SYSTEM)
    assert scores.columns[:6].tolist() == ["id", "speaker", "noise_kind", "snr_db", "gender", "t60"]
    assert (scores["gender"] == "f").all()
    rows = pandas.read_parquet(paths.mixtures(root, "toy") / manifest.FILE).set_index("id")
    assert scores["t60"].tolist() == rows.loc[scores["id"], "t60"].tolist()


def test_manifests_without_the_new_columns_are_evaluated(copy):
    root, params = copy
    path = paths.mixtures(root, "toy") / manifest.FILE
    frame = pandas.read_parquet(path)
    frame.drop(columns=[name for name in ("t60", "text") if name in frame.columns]).to_parquet(
        path, index=False
    )
    evaluate.run(params, "unprocessed", "toy", root)
    scores, _ = results(root, "unprocessed")
    assert "t60" not in scores.columns and len(scores) == 3


LISTEN = """
import pathlib, sys
for path in pathlib.Path(sys.argv[1]).iterdir():
    (pathlib.Path(sys.argv[2]) / f"{path.stem}.txt").write_text("one two three")
"""


def test_words_come_from_the_manifest_or_from_a_file(copy):
    root, params = copy
    (root / "listen.py").write_text(LISTEN)
    command = (sys.executable, "listen.py", "{input}", "{output}")
    params = changed(params, metrics=("wer",), recogniser=settings.Recogniser(command))
    result = evaluate.run(params, SYSTEM, "toy", root)
    assert result["missing"] == {"wer": 3}  # no transcripts, so that the program has nothing to hear
    ids = sorted(results(root, SYSTEM)[0]["id"])
    (root / "texts").write_text(f"{ids[0]} one two four\n{ids[1]} one two three\n")
    result = evaluate.run(changed(params, texts="texts"), SYSTEM, "toy", root)
    assert results(root, SYSTEM)[0]["wer"].tolist()[:2] == pytest.approx([1 / 3, 0])
    assert (result["missing"], result["means"]) == ({"wer": 1}, {"wer": pytest.approx(1 / 6, abs=1e-6)})
    with_columns(root, text="one two three")  # the manifest's own words count first
    evaluate.run(changed(params, texts="texts"), SYSTEM, "toy", root)
    assert results(root, SYSTEM)[0]["wer"].tolist() == [0, 0, 0]


def test_a_metric_without_what_it_needs_is_refused_before_any_work(copy):
    root, params = copy
    with pytest.raises(DiffseError, match=r"evaluate\.weights\.nisqa: these weights are not part of diffse"):
        evaluate.run(changed(params, metrics=("si_sdr", "nisqa")), SYSTEM, "toy", root)
    assert not paths.results(root, SYSTEM, "toy").exists()


def test_scores_of_other_versions_are_said_in_one_line(copy, caplog):
    root, params = copy
    evaluate.run(params, "unprocessed", "toy", root)
    path = paths.results(root, "unprocessed", "toy") / "summary.json"
    summary = json.loads(path.read_text())
    summary["metrics"]["estoi"]["version"] = "pystoi 0.3"
    storage.write_json(path, summary)
    found = evaluate.run(params, SYSTEM, "toy", root)
    (line,) = found["warnings"]
    assert "unprocessed/toy: scores of other versions (estoi pystoi 0.3, here diffse 0" in line
    assert "run 'diffse evaluate unprocessed toy' again" in line and line in caplog.text
    evaluate.run(params, "unprocessed", "toy", root)
    assert evaluate.run(params, SYSTEM, "toy", root)["warnings"] == []


def test_a_rerun_with_kept_scores_changes_no_byte(copy, tmp_path, monkeypatch):
    root, params = copy
    monkeypatch.setenv("DIFFSE_CACHE", str(tmp_path / "cache"))
    written = []
    for cache in (False, True, True):
        evaluate.run(changed(params, cache=cache), SYSTEM, "toy", root)
        folder = paths.results(root, SYSTEM, "toy")
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0] == written[1] == written[2]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["scores.sqlite"]


def test_settings_of_weights_and_programs_are_read(tmp_path):
    block = {
        "metrics": ["nisqa", "wer", "polqa"],
        "weights": {"nisqa": {"file": "nisqa.tar"}, "wav2vec2": {"download": True}},
        "recogniser": {"command": ["listen", "{input}", "{output}"], "rate": 8000},
        "polqa": {"command": ["polqa", "{clean}", "{enhanced}"]},
    }
    found = tiny.write_params(tmp_path, evaluate=block).evaluate
    assert found.weights == {
        "nisqa": settings.Weights(file="nisqa.tar"), "wav2vec2": settings.Weights(download=True),
    }  # fmt: skip
    assert found.recogniser.rate == 8000 and found.polqa.command[0] == "polqa"
    with pytest.raises(DiffseError, match=r"unknown setting 'evaluate\.weights\.nisqa\.path'"):
        tiny.write_params(tmp_path, evaluate={"weights": {"nisqa": {"path": "a"}}})
