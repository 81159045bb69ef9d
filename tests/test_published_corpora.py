"""Every corpus of the papers: its facts, and a miniature of it through preparation, gate and cache."""

import dataclasses
import shutil
from pathlib import Path

import miniature_corpora as miniature
import numpy as np
import pytest

from diffse import paths, presets, storage
from diffse.data import manifest, prepare, shards, stft_cache
from diffse.data.corpora import ears, registry
from diffse.data.manifest import SPLITS
from diffse.errors import DiffseError, GateFailed
from diffse.settings import Corpus, Params, Stft
from diffse.settings_corpora import PublishedCorpus
from diffse.settings_reader import build
from diffse.validation import gate

KINDS = sorted(miniature.TREES)


def params(settings: PublishedCorpus, corpus: str) -> Params:
    return Params((corpus,), (corpus,), (), {corpus: settings}, {}, {}, cache=Stft())


def run(root: Path, kind: str, **changes) -> dict:
    settings = dataclasses.replace(miniature.SETTINGS[kind], **changes)
    return prepare.run(params(settings, kind), kind, root)


def table(root: Path, kind: str):
    return manifest.read(paths.mixtures(root, kind)).set_index("id")


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> dict[str, Path]:
    """kind -> its source tree, built once; tests that change one copy it."""
    top = tmp_path_factory.mktemp("trees")
    for kind in KINDS:
        miniature.TREES[kind](top / kind)
    return {kind: top / kind for kind in KINDS}


@pytest.fixture
def project(trees, tmp_path):
    """Makes a project with the miniature of one corpus, linked, or copied to be changed."""

    def make(kind: str, copied: bool = False) -> Path:
        source = paths.source(tmp_path, kind)
        source.parent.mkdir(exist_ok=True)
        if copied:
            shutil.copytree(trees[kind], source)
        else:
            source.symlink_to(trees[kind])
        return tmp_path

    return make


# ------------------------------------------------------------------------------------------- all of them


def test_every_published_corpus_has_a_miniature():
    kinds = {kind().kind for kind in registry.MODULES if issubclass(kind, PublishedCorpus)}
    assert kinds == set(KINDS) == set(miniature.SETTINGS) == set(miniature.UTTERANCES)


@pytest.mark.parametrize("kind", KINDS)
def test_facts(kind):
    settings = next(known for known in registry.MODULES if known().kind == kind)()
    facts = registry.facts(settings)
    assert facts.title and facts.papers and facts.parts
    for part in facts.parts:
        assert part.home.startswith("https://")
        assert part.title and part.licence and part.citation and part.layout
        for download in part.downloads:
            assert download.url.startswith("https://") and download.gives
            assert download.checksum == "" or len(download.checksum) in (36, 71)
    assert set(facts.expected) <= set(SPLITS)
    assert all(expected.utterances > 0 for expected in facts.expected.values())


@pytest.mark.parametrize("kind", KINDS)
def test_miniature_through_preparation_gate_and_cache(kind, project):
    root = project(kind)
    counts = run(root, kind)
    settings = params(miniature.SETTINGS[kind], kind)
    assert counts["utterances"] == miniature.UTTERANCES[kind]
    assert counts["rejected"] == (1 if kind == "ears_reverb" else 0)
    frame = table(root, kind)
    assert set(frame["rate"]) == {16000}
    assert (frame.groupby("speaker")["split"].nunique() == 1).all()
    assert all(shards.verify(paths.mixtures(root, kind), row) for row in frame.itertuples())
    assert gate.run(settings, "mixtures", (kind,), root)["success"]
    stft_cache.run(settings, kind, root)
    assert gate.run(settings, "cache", (kind,), root)["success"]


@pytest.mark.parametrize("kind", ["vbd", "wsj0_qut"])
def test_same_bytes_in_two_processes(kind, project):
    root = project(kind)
    run(root, kind)
    first = {path.name: storage.sha256_file(path) for path in paths.mixtures(root, kind).iterdir()}
    run(root, kind, processes=2)
    assert {path.name: storage.sha256_file(path) for path in paths.mixtures(root, kind).iterdir()} == first


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_source_is_refused_in_one_line_that_says_where_it_comes_from(kind, tmp_path):
    source = paths.source(tmp_path, kind)
    source.mkdir(parents=True)
    with pytest.raises(DiffseError) as caught:
        run(tmp_path, kind)
    text = str(caught.value)
    assert "\n" not in text
    for part in registry.facts(miniature.SETTINGS[kind]).parts:
        assert part.home in text
    assert "docs/corpora.md" in text
    assert not paths.mixtures(tmp_path, kind).exists()


@pytest.mark.parametrize("kind", KINDS)
def test_another_number_of_utterances_than_published_is_refused(kind, project):
    root = project(kind)
    with pytest.raises(DiffseError, match=r"not all of .*complete: false|EARS lacks 104 of 107 speakers"):
        run(root, kind, complete=True)


@pytest.mark.parametrize("name", sorted(presets.corpora()))
def test_presets_are_settings(name):
    settings = build(Corpus, presets.corpora()[name])
    assert isinstance(settings, PublishedCorpus)
    assert settings.complete


# --------------------------------------------------------------------------------------- one by one


def test_vbd_pairs_conditions_and_validation_speakers(project):
    root = project("vbd", copied=True)
    (paths.source(root, "vbd") / "noisy_trainset_28spk_wav/p228_002.wav").unlink()
    run(root, "vbd", max_rejected=0.1)
    frame = table(root, "vbd")
    assert frame.loc[frame["split"] == "valid", "speaker"].unique().tolist() == ["p226", "p287"]
    assert frame.loc["p228_001", ["gender", "noise_kind", "snr_db"]].tolist() == ["f", "babble", 7.5]
    assert frame.loc["p232_001", ["gender", "split"]].tolist() == ["m", "test"]
    assert "p228_002" not in frame.index
    rejected = (paths.mixtures(root, "vbd") / manifest.REJECTED).read_text()
    assert "clean_trainset_28spk_wav/p228_002.wav,has no partner in noisy_trainset_28spk_wav" in rejected
    with pytest.raises(DiffseError, match="valid_speakers names p999"):
        run(root, "vbd", valid_speakers=("p226", "p999"))


def test_wsj0_discs_microphones_and_second_copies(project):
    root = project("wsj0_chime3", copied=True)
    run(root, "wsj0_chime3")
    first = table(root, "wsj0_chime3")
    assert sorted(first.index) == ["011c0201", "01ac0201", "050c0201", "440c0201"]
    assert first.loc["440c0201", "clean_source"] == "wsj0/11-14.1/WSJ0/SI_ET_05/440/440C0201.WV1"
    source = paths.source(root, "wsj0_chime3")
    original, _ = miniature.audio.read(source / first.loc["011c0201", "clean_source"])
    clean, _ = shards.read_pair(paths.mixtures(root, "wsj0_chime3"), first.loc["011c0201"])
    assert np.max(np.abs(clean - first.loc["011c0201", "gain"] * original[0])) < 1e-6
    run(root, "wsj0_chime3", microphone="wv2")
    assert (table(root, "wsj0_chime3")["clean_sha256"] != first["clean_sha256"]).all()
    again = source / "wsj0/11-2.1/wsj0/si_tr_s/011/011c0201.wv1"
    again.parent.mkdir(parents=True)
    shutil.copyfile(source / first.loc["011c0201", "clean_source"], again)
    assert run(root, "wsj0_chime3", max_rejected=0.2)["rejected"] == 1


def test_chime3_recordings_stay_in_their_split(project):
    root = project("wsj0_chime3")
    run(root, "wsj0_chime3")
    for row in table(root, "wsj0_chime3").itertuples():
        number = Path(row.noise_source).name.split("_")[2]
        assert row.split == {"010": "train", "020": "train", "030": "valid", "040": "test"}[number]
        assert ".CH1." in row.noise_source
        assert 0.0 <= row.snr_db <= 20.0
    with pytest.raises(DiffseError, match="no bus noise for train in channel 3"):
        run(root, "wsj0_chime3", channel=3)


def test_noise_that_all_splits_share_is_prepared_and_caught_by_the_gate(project):
    """The published form: it can be had, but nobody trains on it without having been told."""
    root = project("wsj0_qut")
    settings = dataclasses.replace(
        miniature.SETTINGS["wsj0_qut"], noises="shared", mixtures_per_utterance=miniature.SplitCounts(6, 6, 6)
    )
    prepare.run(params(settings, "wsj0_qut"), "wsj0_qut", root)
    used = table(root, "wsj0_qut").groupby("noise_source")["split"].nunique()
    assert used.max() > 1
    with pytest.raises(GateFailed, match="noise recordings in one split"):
        gate.run(params(settings, "wsj0_qut"), "mixtures", ("wsj0_qut",), root)


def test_timit_speakers_sentences_and_transcripts(project):
    root = project("timit_chime3")
    run(root, "timit_chime3")
    frame = table(root, "timit_chime3")
    assert sorted(frame.index) == ["fadg0_sx379", "fcjf0_sx37", "fdhc0_sx119", "marc0_si1188"]
    assert frame.loc["fdhc0_sx119", ["split", "gender", "text"]].tolist() == [
        "test",
        "f",
        "Sx119 was a good dog.",
    ]
    assert frame.loc["fadg0_sx379", "split"] == "valid"


def test_qut_sessions_levels_and_the_ends_of_car_recordings(project):
    root = project("wsj0_qut")
    levels = miniature.SETTINGS["wsj0_qut"].snr_levels
    levels = dataclasses.replace(levels, test=(-5.0, 5.0))
    run(root, "wsj0_qut", snr_levels=levels, mixtures_per_utterance=miniature.SplitCounts(8, 8, 12))
    frame = table(root, "wsj0_qut")
    test = frame[frame["split"] == "test"]
    assert set(test["snr_db"]) == {-5.0, 5.0}
    assert frame[frame["split"] == "train"]["snr_db"].between(0.0, 15.0).all()
    assert test["noise_source"].str.contains("-2.wav").all()
    cars = frame[frame["noise_kind"] == "car"]
    assert len(cars) > 2
    assert cars["noise_offset"].between(0.2 * 48000, 1.3 * 48000).all()


def test_ntcd_timit_conditions(project):
    root = project("ntcd_timit")
    run(root, "ntcd_timit")
    frame = table(root, "ntcd_timit")
    test = frame[frame["split"] == "test"]
    assert set(test["speaker"]) == {"09F"}
    assert sorted(zip(test["noise_kind"], test["snr_db"], strict=True)) == [
        ("babble", -5.0), ("babble", 5.0), ("lr", -5.0), ("lr", 5.0)
    ]  # fmt: skip
    assert test["clean_source"].nunique() == 3, "no sentence again before all three were used"
    for row in frame.itertuples():
        assert Path(row.clean_source).name == Path(row.noise_source).name


def test_ears_is_cut_filtered_and_sifted(project):
    root = project("ears_wham")
    run(root, "ears_wham")
    frame = table(root, "ears_wham")
    rate = 48000
    train = frame[frame["split"] == "train"].sort_index()
    assert train.index.tolist() == [
        "p001_emo_anger_sentences_00",
        "p001_rainbow_01_regular_00",
        "p001_rainbow_01_regular_01",
        "p001_rainbow_03_whisper_00",
    ], "no sounds that are not speech, nothing short, nothing quiet but whispering"
    assert train["clean_offset"].tolist() == [0, 0, 2 * rate, 0]
    assert train["seconds"].tolist() == pytest.approx([1.2, 2.0, 1.2, 1.2])
    assert set(train["gender"]) == {"f"}
    test = frame[frame["split"] == "test"].sort_index()
    assert test["clean_offset"].tolist() == [4800, 0, rate]
    assert test["n_samples"].sum() == pytest.approx((1.2 - 0.1 + 3.2) * 16000, abs=4)
    assert (test["snr_db"] - test["snr_db"].round(1)).abs().max() < 1e-9
    assert (frame["snr_mixed_db"] - frame["snr_db"]).abs().max() < 0.1, "loudness, as the benchmark asks for it"
    clean, _ = shards.read_pair(paths.mixtures(root, "ears_wham"), test.iloc[1])
    assert abs(clean[0]) < 1e-4 and abs(clean[-1]) < 1e-3, "the cuts are ramped"


def test_ears_without_filter_and_threshold_is_the_first_version(project):
    root = project("ears_wham")
    cut = dataclasses.replace(miniature.SETTINGS["ears_wham"].cut, highpass_hz=0.0, min_loudness=-70.0)
    run(root, "ears_wham", cut=cut)
    frame = table(root, "ears_wham")
    assert "p001_rainbow_02_regular_00" in frame.index
    source = paths.source(root, "ears_wham")
    row = frame.loc["p001_emo_anger_sentences_00"]
    clean, _ = shards.read_pair(paths.mixtures(root, "ears_wham"), row)
    original, rate = miniature.audio.read(source / row["clean_source"])
    wanted = row["gain"] * miniature.audio.resample(original[0], rate, 16000)
    assert np.max(np.abs(clean - wanted)) < 1e-5


def test_ears_test_snrs_fill_the_bins_of_each_style():
    speech = [
        ears.Speech(f"p102_emo_anger_{k:03d}", "test", "p102", Path(f"{k}"), f"EARS/p102/emo_anger_{k:03d}.wav")
        for k in range(24)
    ]
    snrs = np.array([item.snr_db for item in ears._with_test_snr(speech, miniature.SETTINGS["ears_wham"].cut)])
    bins = np.floor((snrs + 2.5) / (20.0 / 12) - 1e-6)
    assert np.bincount(np.clip(bins, 0, 11).astype(int)).tolist() == pytest.approx([2] * 12, abs=1)
    assert len(set(snrs)) > 20


def test_wham_noises_keep_their_published_split_and_a_leaking_pool_is_caught(project):
    root = project("ears_wham", copied=True)
    run(root, "ears_wham")
    for row in table(root, "ears_wham").itertuples():
        assert Path(row.noise_source).stem[:-1].lower() == row.split
    settings = dataclasses.replace(
        miniature.SETTINGS["ears_wham"], noises="shared", mixtures_per_utterance=miniature.SplitCounts(2, 2, 2)
    )
    prepare.run(params(settings, "ears_wham"), "ears_wham", root)
    with pytest.raises(GateFailed, match="noise recordings in one split"):
        gate.run(params(settings, "ears_wham"), "mixtures", ("ears_wham",), root)
    (paths.source(root, "ears_wham") / "WHAM48kHz/high_res_wham/audio/Train0.wav").unlink()
    assert run(root, "ears_wham", max_rejected=0.2)["rejected"] == 1
    rejected = (paths.mixtures(root, "ears_wham") / manifest.REJECTED).read_text()
    assert 'Train0.wav,"is not there, but high_res_metadata.csv lists it"' in rejected


def test_ears_at_48_khz(project):
    root = project("ears_wham")
    run(root, "ears_wham", rate=48000)
    assert set(table(root, "ears_wham")["rate"]) == {48000}


def test_ears_rooms_come_from_other_data_sets_in_each_split(project):
    root = project("ears_reverb")
    run(root, "ears_reverb", mixtures_per_utterance=miniature.SplitCounts(4, 2, 2))
    frame = table(root, "ears_reverb")
    rooms = {split: set(rows["room"]) for split, rows in frame.groupby("split")}
    assert rooms == {
        "train": {"ARNI", "Palimpsest/room"},
        "valid": {"AIR/AIR_1_4/AIR_wav_files"},
        "test": {"ACE-Challenge/Single/Office_1"},
    }
    assert frame["t60"].between(0.1, 0.6).all()
    rejected = (paths.mixtures(root, "ears_reverb") / manifest.REJECTED).read_text()
    assert "Palimpsest/hall/IR.wav,decays too slowly" in rejected


def test_wsj0_in_rooms_in_both_published_forms(project):
    root = project("wsj0_reverb")
    run(root, "wsj0_reverb")
    frame = table(root, "wsj0_reverb")
    assert frame["room"].is_unique
    assert frame["peak"].tolist() == pytest.approx([0.9] * 4, abs=1e-3)
    assert frame["seconds"].tolist() == [1.5] * 4, "half a second for the tail"
    assert set(frame["target"]) == {"anechoic"}
    storm = dataclasses.replace(miniature.SETTINGS["wsj0_reverb"].rooms, level="direct")
    run(root, "wsj0_reverb", rooms=storm)
    assert table(root, "wsj0_reverb")["peak"].nunique() == 4
    with pytest.raises(DiffseError, match=r"rooms.kind is 'none'; this corpus needs 'simulated'"):
        run(root, "wsj0_reverb", rooms=miniature.Rooms())


# ------------------------------------------------------------------------------------ real recordings


def test_real_recordings_in_the_layouts_of_vbd_and_of_wsj0_in_chime3(corpus, tmp_path):
    """Real pairs keep the SI-SDR they are known for, and real speech in real noise passes the gate."""
    sources = tmp_path / "sources"
    lines = (corpus / "splits/pairs_vbd_test_subset.txt").read_text().split("\n")
    pairs = [line.split("\t") for line in lines if line]
    for split, chosen in (("trainset_28spk", pairs[:3]), ("testset", pairs[3:])):
        for k, files in enumerate(chosen):
            name = Path(files[0]).stem if split == "testset" else f"{('p226', 'p227', 'p228')[k]}_001"
            for side, file in zip(("clean", "noisy"), files, strict=True):
                path = sources / f"vbd/{side}_{split}_wav/{name}.flac"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(corpus / file)
    run(tmp_path, "vbd")
    frame = table(tmp_path, "vbd")
    assert frame["split"].value_counts().to_dict() == {"test": len(pairs) - 3, "train": 2, "valid": 1}
    assert gate.run(params(miniature.SETTINGS["vbd"], "vbd"), "mixtures", ("vbd",), tmp_path)["success"]
    build_real_wsj0(corpus, sources / "wsj0_chime3")
    run(tmp_path, "wsj0_chime3")
    settings = params(miniature.SETTINGS["wsj0_chime3"], "wsj0_chime3")
    assert gate.run(settings, "mixtures", ("wsj0_chime3",), tmp_path)["success"]
    errors = table(tmp_path, "wsj0_chime3").eval("snr_db - snr_measured_db").abs()
    assert errors.max() < 0.01


def build_real_wsj0(corpus: Path, source: Path) -> None:
    """Real speech as sphere files and real noise as backgrounds, under the names of the discs."""
    places = {"train": "si_tr_s/011/011c", "valid": "si_dt_05/050/050c", "test": "si_et_05/440/440c"}
    numbers = {"train": "010", "valid": "030", "test": "040"}
    for split, place in places.items():
        speech = (corpus / f"splits/{split}_speech.txt").read_text().split()[:2]
        for k, file in enumerate(speech):
            wave, rate = miniature.audio.read(corpus / file)
            miniature.sphere(source / f"wsj0/11-1.1/wsj0/{place}020{k}.wv1", wave[0], rate)
        noise = (corpus / f"splits/{split}_noise.txt").read_text().split()[::5]
        for environment, file in zip(("BUS", "CAF", "PED", "STR"), noise, strict=False):
            name = f"BGD_150204_{numbers[split]}_{environment}.CH1.flac"
            path = source / "chime3/CHiME3/data/audio/16kHz/backgrounds" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(corpus / file)
