"""Enhancement: out as in, batched as alone, long as short; and bad input in one line."""

import json
import math
import shutil
import struct
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tiny import TRAIN, voice
from torch import nn

from diffse import checkpoint, chunking, recipes, settings
from diffse.cli import main
from diffse.enhance_files import enhance_paths
from diffse.enhancer import Enhancer
from diffse.errors import DiffseError
from diffse.settings_reader import from_plain, to_plain


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Commands of a test leave no run records in the checkout."""
    monkeypatch.chdir(tmp_path)


def make_checkpoint(folder, process="sbve", sampler=None, seed=0, **enhance):
    """A checkpoint with random weights that really change the signal."""
    objective = {"sbve": "data_prediction", "ouve": "score_matching"}[process]
    plain = {**TRAIN, "process": {"name": process}, "objective": {"name": objective}}
    train = from_plain(settings.Train, plain, "test")
    chosen = (
        sampler or {"sbve": settings.BridgeODE(steps=2), "ouve": settings.PredictorCorrector(steps=2)}[process]
    )
    torch.manual_seed(seed)
    network = recipes.build_network(train, settings.Stft())
    for parameter in network.parameters():
        if parameter.requires_grad and parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5 / math.sqrt(parameter[0].numel()))
    options = settings.Enhance(sampler=chosen, **enhance)
    checkpoint.save(
        folder,
        network,
        {"recipe": "r", "step": 1, "train": to_plain(train), "stft": to_plain(settings.Stft()),
         "enhance": to_plain(options), "parameters": recipes.count_parameters(network)},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("model"), chunk_seconds=0.5, overlap_seconds=0.1)


@pytest.fixture(scope="module")
def enhancer(folder):
    return Enhancer.from_checkpoint(folder, "cpu")


def identity(enhancer):
    """The same enhancer with a sampler that returns its input."""
    copy = Enhancer(enhancer.system, "cpu")
    copy._sample = lambda y, draw: y
    return copy


@given(
    length=st.one_of(st.integers(1, 700), st.sampled_from([7999, 8000, 8001, 12345])),
    channels=st.sampled_from([None, 1, 2]),
    rate=st.sampled_from([8000, 16000, 44100]),
)
@hypothesis_settings(max_examples=25, deadline=None)
def test_shape_in_is_shape_out(enhancer, length, channels, rate):
    shape = (length,) if channels is None else (channels, length)
    wave = np.random.default_rng(length).standard_normal(shape).astype(np.float32) * 0.1
    out = enhancer(wave, rate)
    assert out.shape == shape and out.dtype == np.float32 and np.isfinite(out).all()


@pytest.mark.parametrize("length", [1, 100, 256, 4000, 8000, 20001, 50000])
def test_identity_is_identity_at_any_length(enhancer, length):
    """Chunking, padding, compression and their inverses together change nothing: no seams, same level."""
    wave = voice(3, length / 16000 + 0.01)[:length] * 3
    out = identity(enhancer)(wave, 16000)
    assert np.abs(out - wave).max() < 2e-5 * max(np.abs(wave).max(), 1e-3)


def test_level_follows_the_input(enhancer):
    wave = voice(4, 0.4)
    loud, quiet = enhancer(wave, 16000), enhancer(wave * 0.01, 16000)
    assert np.abs(loud * 0.01 - quiet).max() < 1e-4 * np.abs(quiet).max() + 1e-9


@pytest.mark.parametrize("process", ["sbve", "ouve"])
def test_batched_is_alone_and_order_does_not_matter(tmp_path, process):
    enhancer = Enhancer.from_checkpoint(make_checkpoint(tmp_path / process, process, chunk_seconds=4.0), "cpu")
    waves = [voice(i, s) for i, s in enumerate((0.3, 0.9, 0.31, 0.7, 0.29))]
    keys = list("abcde")
    together = enhancer.many(waves, 16000, keys)
    order = [3, 0, 4, 2, 1]
    shuffled = enhancer.many([waves[i] for i in order], 16000, [keys[i] for i in order])
    for i, key in enumerate(keys):
        alone = enhancer(waves[i], 16000, key)
        scale = np.abs(alone).max()
        assert np.abs(together[i] - alone).max() < 1e-4 * scale
        assert np.abs(shuffled[order.index(i)] - alone).max() < 1e-4 * scale


def test_files_are_told_as_they_are_finished(folder):
    """So that a bar moves within the hundreds of files that are enhanced together."""
    enhancer, told = Enhancer.from_checkpoint(folder, batch=2), []
    long = np.stack([voice(0, 1.2), voice(1, 1.2)])  # two channels of three chunks
    waves = [long, voice(2, 0.3), voice(3, 0.3), voice(4, 0.3)]
    chunks, real = [], enhancer._batch
    enhancer._batch = lambda waves, keys: (chunks.extend(keys), real(waves, keys))[1]
    enhancer.many(waves, 16000, list("abcd"), lambda: told.append(Counter(key[0] for key in chunks)))
    of = Counter(key[0] for key in chunks)
    assert of["a"] >= 6 and of["b"] == of["c"] == of["d"] == 1
    assert len(told) == 4
    for count, seen in enumerate(told, 1):  # of as many files all chunks have been enhanced
        assert sum(seen[name] == of[name] for name in "abcd") >= count
    assert sum(told[0].values()) < sum(of.values())


def test_noise_belongs_to_seed_and_key(tmp_path):
    folder = make_checkpoint(tmp_path / "m", "ouve")
    wave = voice(0, 0.3)
    first = Enhancer.from_checkpoint(folder, "cpu", seed=1)
    assert np.array_equal(first(wave, 16000, "a"), first(wave, 16000, "a"))
    assert not np.array_equal(first(wave, 16000, "a"), first(wave, 16000, "b"))
    other = Enhancer.from_checkpoint(folder, "cpu", seed=2)
    assert not np.array_equal(first(wave, 16000, "a"), other(wave, 16000, "a"))


def test_silence_stays_silence(enhancer):
    assert not enhancer(np.zeros(3000, np.float32), 16000).any()


def test_stream_equals_array(enhancer):
    wave = voice(5, 2.3)[None]
    pieces = list(enhancer.stream(lambda a, b: wave[:, a:b], wave.shape[1], 16000, "k"))
    assert len(pieces) > 3
    assert np.array_equal(np.concatenate(pieces, 1), enhancer(wave, 16000, "k"))


@given(length=st.integers(1, 400), size=st.integers(2, 90), overlap=st.integers(0, 40))
def test_chunks_cover_and_join_exactly(length, size, overlap):
    overlap = min(overlap, size - 1)
    spans = chunking.plan(length, size, overlap)
    assert spans[0][0] == 0 and spans[-1][1] == length
    assert all(stop - start == size for start, stop in spans) or spans == [(0, length)]
    wave = np.random.default_rng(length).standard_normal((1, length)).astype(np.float32)
    joined = np.concatenate(list(chunking.join([(s, wave[:, s[0] : s[1]]) for s in spans], overlap)), 1)
    assert np.array_equal(joined, wave)


def test_a_cross_fade_has_no_step():
    spans = chunking.plan(100, 60, 20)
    parts = [(span, np.full((1, 60), float(i))) for i, span in enumerate(spans)]
    joined = np.concatenate(list(chunking.join(parts, 20)), 1)[0]
    assert joined[0] == 0 and joined[-1] == len(spans) - 1
    assert np.abs(np.diff(joined)).max() < 0.06


# ------------------------------------------------------------------------------------------------ files


@pytest.fixture
def recordings(tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    stereo = np.stack([voice(0, 0.6, 44100), voice(1, 0.6, 44100)], 1)
    soundfile.write(folder / "a.wav", stereo, 44100, "PCM_24")
    soundfile.write(folder / "sub" / "b.flac", voice(2, 0.5), 16000)
    soundfile.write(folder / "c.ogg", voice(3, 0.5), 16000)
    return folder


def test_files_keep_their_form(folder, recordings, tmp_path):
    out = tmp_path / "out"
    summary = enhance_paths(recordings, out, folder)
    assert summary["enhanced"] == 3 and summary["network_evaluations"] == 2
    for name in ("a.wav", "sub/b.flac", "c.ogg"):
        before, after = soundfile.info(recordings / name), soundfile.info(out / name)
        for what in ("samplerate", "channels", "frames", "format", "subtype"):
            assert getattr(before, what) == getattr(after, what), (name, what)
    assert enhance_paths(recordings, out, folder)["kept"] == 3
    assert enhance_paths(recordings, out, folder, overwrite=True)["enhanced"] == 3


def test_a_file_equals_the_array_result(folder, recordings, tmp_path):
    source = tmp_path / "one.wav"
    soundfile.write(source, voice(2, 1.7), 16000, "FLOAT")
    enhance_paths(source, tmp_path / "o.wav", folder)
    wave, rate = soundfile.read(source, dtype="float32")
    expected = Enhancer.from_checkpoint(folder, "cpu")(wave, rate, "one.wav")
    assert np.array_equal(soundfile.read(tmp_path / "o.wav", dtype="float32")[0], expected)


def test_one_bad_file_does_not_stop_the_others(folder, recordings, tmp_path):
    (recordings / "bad.wav").write_bytes(b"RIFFnothing")
    with pytest.raises(DiffseError, match=r"bad\.wav.*3 of 4 files were enhanced"):
        enhance_paths(recordings, tmp_path / "out", folder)
    assert len(list((tmp_path / "out").rglob("*.*"))) == 3


def _nan(path):
    soundfile.write(path, np.array([0.0, np.nan, 0.1], np.float32), 16000, "FLOAT")


BAD = {
    "missing": (lambda path: None, "no such file"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "not audio": (lambda path: path.write_text("hello"), "audio"),
    "no samples": (lambda path: soundfile.write(path, np.zeros((0, 1)), 16000), "sample"),
    "nan": (_nan, "NaN"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_line_and_leaves_nothing(kind, folder, tmp_path, capsys):
    make, message = BAD[kind]
    path = tmp_path / "x.wav"
    make(path)
    before = path.read_bytes() if path.exists() else None
    code = main(["enhance", str(path), str(tmp_path / "o.wav"), "--checkpoint", str(folder)])
    error = capsys.readouterr().err.strip()
    assert code == 2 and len(error.splitlines()) == 1 and str(path) in error
    assert message.lower() in error.lower()
    assert not (tmp_path / "o.wav").exists() and not list(tmp_path.glob(".*"))
    assert (path.read_bytes() if path.exists() else None) == before


def test_a_truncated_file_is_refused(folder, tmp_path, capsys):
    path = tmp_path / "t.wav"
    soundfile.write(path, voice(0, 0.5), 16000)
    path.write_bytes(path.read_bytes()[:6000])
    assert main(["enhance", str(path), str(tmp_path / "o.wav"), "--checkpoint", str(folder)]) == 2
    assert "t.wav" in capsys.readouterr().err


def test_a_flac_file_that_breaks_off_is_called_truncated(folder, tmp_path, capsys):
    path = tmp_path / "t.flac"
    soundfile.write(path, voice(0, 2.0), 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert main(["enhance", str(path), str(tmp_path / "o.flac"), "--checkpoint", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "t.flac: damaged or truncated" in said and "disk" not in said
    assert not (tmp_path / "o.flac").exists()


def test_wrong_rate_is_refused_where_the_checkpoint_fixes_it(folder, tmp_path, capsys):
    path = tmp_path / "r.wav"
    soundfile.write(path, voice(0, 0.5, 44100), 44100)
    arguments = ["enhance", str(path), str(tmp_path / "o.wav"), "--checkpoint", str(folder), "--no-resample"]
    assert main(arguments) == 2
    assert "r.wav: has 44100 Hz, but the checkpoint is for 16000 Hz" in capsys.readouterr().err


def test_inputs_are_never_overwritten(folder, recordings):
    for target in (recordings, recordings / "a.wav"):
        source = recordings if target == recordings else target
        with pytest.raises(DiffseError, match="its own input"):
            enhance_paths(source, target, folder, overwrite=True)


def test_outputs_inside_the_input_folder_are_no_inputs(folder, recordings):
    assert enhance_paths(recordings, recordings / "out", folder)["enhanced"] == 3
    again = enhance_paths(recordings, recordings / "out", folder)
    assert (again["enhanced"], again["kept"]) == (0, 3)


def test_arrays_that_are_no_audio_are_refused(enhancer):
    for bad in (np.zeros(0), np.zeros((2, 0)), np.zeros((2, 3, 4)), np.array([1.0, np.inf])):
        with pytest.raises(DiffseError):
            enhancer(bad, 16000)


# ------------------------------------------------------------------------------------------ checkpoints


def _hostile(folder):
    """A pickle that would create a file when loaded."""
    import os
    import pickle

    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {folder.parent}/exploded",)

    (folder / checkpoint.WEIGHTS).write_bytes(pickle.dumps(Bomb()))
    _rehash(folder)


def _rehash(folder):
    from diffse.storage import sha256_file

    path = folder / checkpoint.DESCRIPTION
    description = json.loads(path.read_text())
    description["weights_sha256"] = sha256_file(folder / checkpoint.WEIGHTS)
    path.write_text(json.dumps(description))


def _edit(**changes):
    def apply(folder):
        path = folder / checkpoint.DESCRIPTION
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return apply


def _truncate(folder):
    path = folder / checkpoint.WEIGHTS
    path.write_bytes(path.read_bytes()[:1000])


def _huge_header(folder):
    (folder / checkpoint.WEIGHTS).write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    _rehash(folder)


FAULTS = {
    "pickle": (_hostile, "not a readable safetensors"),
    "header": (_huge_header, "not a readable safetensors"),
    "truncated": (_truncate, "damaged"),
    "no weights": (lambda f: (f / checkpoint.WEIGHTS).unlink(), "missing"),
    "json": (lambda f: (f / checkpoint.DESCRIPTION).write_text("{"), "not valid JSON"),
    "format": (_edit(format=99), "format 99"),
    "incomplete": (_edit(train={"frames": "many"}), "frames"),
    "unknown setting": (_edit(enhance={"sampler": {"name": "magic"}}), "magic"),
    "foreign pair": (_edit(enhance={"sampler": {"name": "pc"}}), "does not fit process"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_checkpoint_is_one_line_and_runs_no_code(fault, folder, tmp_path):
    broken = tmp_path / "model"
    shutil.copytree(folder, broken)
    break_it, message = FAULTS[fault]
    break_it(broken)
    with pytest.raises(DiffseError) as caught:
        Enhancer.from_checkpoint(broken, "cpu")
    text = str(caught.value)
    assert message in text and str(broken) in text and "\n" not in text
    assert not (tmp_path / "exploded").exists()


def test_weights_of_another_network_are_refused(folder, tmp_path):
    broken = tmp_path / "model"
    shutil.copytree(folder, broken)
    description = json.loads((broken / checkpoint.DESCRIPTION).read_text())
    description["train"]["network"]["nf"] = 12
    (broken / checkpoint.DESCRIPTION).write_text(json.dumps(description))
    with pytest.raises(DiffseError, match="do not belong together"):
        Enhancer.from_checkpoint(broken, "cpu")


def test_what_is_no_checkpoint_is_said(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x02")
    (tmp_path / "empty").mkdir()
    for path, message in (("nowhere", "no such checkpoint"), ("empty", "not a diffse"), ("model.ckpt", "code")):
        with pytest.raises(DiffseError, match=message):
            Enhancer.from_checkpoint(tmp_path / path)


def test_steps_and_device_are_checked(folder):
    assert Enhancer.from_checkpoint(folder, "cpu", steps=7).evaluations == 7
    with pytest.raises(DiffseError, match="steps is 0"):
        Enhancer.from_checkpoint(folder, "cpu", steps=0)
    with pytest.raises(DiffseError, match="batch is 0"):
        Enhancer.from_checkpoint(folder, "cpu", batch=0)
    with pytest.raises(DiffseError, match="device 'gpu9'"):
        Enhancer.from_checkpoint(folder, "gpu9")


def test_a_single_sample_of_a_high_rate_is_enhanced(enhancer):
    """Brought to 16 kHz nothing would be left of it."""
    out = enhancer(np.full(1, 0.1, np.float32), 44100)
    assert out.shape == (1,) and np.isfinite(out).all()


def test_the_enhance_block_replaces_all_that_the_checkpoint_stores(folder):
    options = settings.Enhance(settings.BridgeODE(steps=3), 2, 0.25, 0.05, "zero", "padded", 9)
    enhancer = Enhancer.from_checkpoint(folder, "cpu", enhance=options)
    assert enhancer.system.enhance == options
    assert (enhancer.batch, enhancer.seed, enhancer.evaluations) == (2, 9, 3)
    assert enhancer.chunk_size(16000) == 4000
    wave = voice(1, 0.7)
    assert not np.array_equal(enhancer(wave, 16000), Enhancer.from_checkpoint(folder, "cpu")(wave, 16000))
    with pytest.raises(DiffseError, match="sampler 'pc' does not fit"):
        Enhancer.from_checkpoint(folder, "cpu", enhance=settings.Enhance())


def test_a_checkpoint_of_an_earlier_version_loads_unless_it_uses_what_is_gone(folder, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    path = old / checkpoint.DESCRIPTION
    description = json.loads(path.read_text())
    wave = voice(0, 0.3)
    expected = Enhancer.from_checkpoint(folder)(wave, 16000)
    description["enhance"]["sampler"]["restart"] = 1.0
    path.write_text(json.dumps(description))
    assert np.array_equal(Enhancer.from_checkpoint(old)(wave, 16000), expected)
    description["enhance"]["sampler"]["restart"] = 0.3
    path.write_text(json.dumps(description))
    with pytest.raises(DiffseError, match=r"checkpoint\.json: sampler\.restart 0\.3 is of an earlier version"):
        Enhancer.from_checkpoint(old)
    whole = Enhancer.from_checkpoint(folder).system.enhance
    for other in ({"sampler": whole.sampler}, {"enhance": whole}):
        assert np.array_equal(Enhancer.from_checkpoint(old, **other)(wave, 16000), expected)
