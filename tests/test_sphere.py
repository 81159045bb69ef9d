"""Sphere files, plain and shorten-compressed, by the decoder that is there."""

import importlib.util
import sys
from pathlib import Path

import miniature_corpora as miniature
import numpy as np
import pytest
import shorten

from diffse import audio, paths, sphere
from diffse.audio import AudioError
from diffse.data import manifest, prepare
from diffse.settings import Params

WAVE = miniature.speech("011c0201", 0.4)
SAMPLES = np.rint(WAVE * 32767).astype(int)


def compressed(path: Path, samples: np.ndarray = SAMPLES) -> Path:
    miniature.sphere(path, samples / 32767)
    head = path.read_bytes()[:1024].rstrip()
    head = head.replace(b"sample_coding -s3 pcm", b"sample_coding -s26 pcm,embedded-shorten-v2.00")
    path.write_bytes(head.ljust(1023) + b"\n" + shorten.encode(samples.tolist()))
    return path


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A program called sph2pipe, the only decoder that there is."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sph2pipe").write_text(f"#!{sys.executable}\n" + Path(shorten.__file__).read_text())
    (folder / "sph2pipe").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setitem(sys.modules, "desphere", None)
    return folder / "sph2pipe"


def test_plain_sphere_files_are_read_whatever_their_name(tmp_path):
    for name in ("a.wv1", "A.WV1", "SX1.WAV"):
        miniature.sphere(tmp_path / name, WAVE)
        wave, rate = audio.read(tmp_path / name)
        assert rate == 16000
        assert np.array_equal(np.rint(wave[0] * 32768), SAMPLES)
    (tmp_path / "a.wv1").write_bytes((tmp_path / "a.wv1").read_bytes()[:-100])
    with pytest.raises(AudioError, match="100 bytes of audio are missing"):
        audio.read(tmp_path / "a.wv1")


def test_the_encoder_of_these_tests_is_undone_by_its_decoder():
    assert shorten.decode(shorten.encode(SAMPLES.tolist())) == SAMPLES.tolist()


def test_compressed_files_are_decoded_by_the_program(program, tmp_path):
    path = compressed(tmp_path / "-f odd 'name'.wv1")
    assert audio.info(path).samples == len(SAMPLES)
    wave, _ = audio.read(path, 1000, 500)
    assert np.array_equal(np.rint(wave[0] * 32768), SAMPLES[1000:1500])
    assert audio.scan(path).samples == len(SAMPLES)


def test_damaged_compressed_files_are_refused(program, tmp_path):
    path = compressed(tmp_path / "a.wv1")
    whole = path.read_bytes()
    path.write_bytes(whole[:-400])
    with pytest.raises(AudioError, match=r"sph2pipe cannot decode it .*conversion failed"):
        audio.read(path)
    path.write_bytes(whole.replace(b"sample_count -i 6400", b"sample_count -i 6401"))
    with pytest.raises(AudioError, match="another number of samples"):
        audio.read(path)


def test_without_a_decoder_the_two_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "desphere", None)
    with pytest.raises(AudioError, match="install the Python package desphere or the program sph2pipe"):
        audio.info(compressed(tmp_path / "a.wv1"))


def test_the_library_decodes_too(tmp_path):
    if importlib.util.find_spec("desphere") is None:
        pytest.skip("the package desphere is not installed")
    wave, _ = audio.read(compressed(tmp_path / "a.wv1"))
    assert np.array_equal(np.rint(wave[0] * 32768), SAMPLES)


def test_compressed_wsj0_is_prepared_and_a_damaged_file_listed(program, tmp_path):
    source = paths.source(tmp_path, "w")
    miniature.wsj0_chime3(source)
    files = sorted(source.rglob("*.[wW][vV]1"))
    for path in files:
        compressed(path, np.rint(miniature.speech(path.name, 0.4) * 32767).astype(int))
    files[0].write_bytes(files[0].read_bytes()[:-400])
    settings = miniature.Wsj0Chime3(complete=False, processes=1, max_rejected=0.2)
    prepare.run(Params(("w",), (), (), {"w": settings}, {}, {}), "w", tmp_path)
    assert len(manifest.read(paths.mixtures(tmp_path, "w"))) == len(files) - 1
    assert "sph2pipe cannot decode it" in (paths.mixtures(tmp_path, "w") / manifest.REJECTED).read_text()


def test_headers(tmp_path):
    miniature.sphere(tmp_path / "a.sph", WAVE)
    fields = sphere.header(tmp_path / "a.sph")
    assert fields["sample_count"] == str(len(WAVE))
    assert fields["sample_coding"] == "pcm"
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    assert sphere.header(tmp_path / "b.wav") == {}
