"""NISQA, WV-MOS, SQUIM and the recogniser with small random weights, and where their weights come from."""

import dataclasses
import functools
import hashlib
import http.server
import ssl
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from torch import nn

from diffse import paths, settings
from diffse.errors import DiffseError
from diffse.metrics import nisqa, table, tools, wav2vec2, weights
from diffse.metrics.checks import Missing
from diffse.metrics.score import score_pair

RATE = 16000
NETWORKS = ("nisqa", "wvmos", "squim")


def random_state(network: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Weights by name from one generator: the same in any program that knows the names."""
    generator, state = torch.Generator().manual_seed(seed), {}
    for name, value in sorted(network.state_dict().items()):
        if value.dtype == torch.float32:
            state[name] = torch.randn(value.shape, generator=generator) * 0.1
            if name.endswith("running_var"):
                state[name] = state[name].abs() + 0.5
        else:
            state[name] = value
    return state


def small_wav2vec2(outputs: int | None) -> nn.Module:
    """The base form, narrow and shallow."""
    from torchaudio.models import wav2vec2_model

    kernels = zip((10, 3, 3, 3, 3, 2, 2), wav2vec2._STRIDES, strict=True)
    return wav2vec2_model(
        "group_norm", [(16, kernel, stride) for kernel, stride in kernels], False, 64, 0.0, 8, 4, 2, 1, 0.0, 96,
        0.0, 0.0, False, 0.0, outputs,
    )  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Weights files as their authors publish them, with random numbers."""
    from torchaudio.models import squim_objective_base

    folder = tmp_path_factory.mktemp("weights")
    found = {name: folder / f"{name}.pt" for name in (*NETWORKS, "wav2vec2")}
    published = {"model_state_dict": random_state(nisqa.NISQA(), 7), "args": {"ms_n_mels": 48}, "epoch": 3}
    torch.save(published, found["nisqa"])
    torch.manual_seed(0)
    torch.save(squim_objective_base().state_dict(), found["squim"])
    torch.manual_seed(0)
    encoder, dense = (
        small_wav2vec2(None),
        nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Identity(), nn.Linear(8, 1)),
    )
    state = {f"model.encoder.{name}": value for name, value in encoder.state_dict().items()}
    state = {name.replace("encoder.encoder.transformer", "encoder.encoder"): v for name, v in state.items()}
    state = {name.replace("encoder.encoder.feature_projection", "encoder.feature_projection"): v
             for name, v in state.items()}  # fmt: skip
    state = {name.replace("parametrizations.weight.original0", "weight_g"): v for name, v in state.items()}
    state = {name.replace("parametrizations.weight.original1", "weight_v"): v for name, v in state.items()}
    state |= {f"model.dense.{name}": value for name, value in dense.state_dict().items()}
    state["model.encoder.masked_spec_embed"] = torch.zeros(64)
    torch.save({"state_dict": state, "epoch": 1}, found["wvmos"])
    torch.save(small_wav2vec2(32).state_dict(), found["wav2vec2"])
    return found


def with_files(files: dict[str, Path], *names: str) -> settings.Evaluate:
    chosen = {name: settings.Weights(file=str(files[name])) for name in names}
    return settings.Evaluate(metrics=NETWORKS, weights=chosen)


@pytest.fixture(scope="module")
def found(files) -> tools.Tools:
    return tools.find(with_files(files, *NETWORKS, "wav2vec2"), (*NETWORKS, "wer"), Path())


@pytest.fixture(scope="module")
def noisy(corpus) -> np.ndarray:
    return soundfile.read(corpus / "pairs/noisy/p232_006.flac", dtype="float32")[0]


# ------------------------------------------------------------------------------------------------- numbers


def test_nisqa_is_what_its_authors_program_computes(noisy, found):
    """Output of nisqa 2.0.post2 (spectrogram of librosa 0.11) with the same random weights."""
    row = score_pair(noisy, noisy, noisy, RATE, ("nisqa",), tools=found)
    values = [row[f"nisqa_{name}"] for name in ("mos", "noi", "dis", "col", "loud")]
    assert values == pytest.approx([-0.0026622, -0.0785488, -0.0869718, 0.0545693, -0.2950656], abs=1e-5)


def test_wvmos_is_its_encoder_its_head_and_a_mean(noisy, files, found):
    """The same, put together by hand from the published names."""
    state = torch.load(files["wvmos"], weights_only=True)["state_dict"]
    encoder = small_wav2vec2(None).eval()
    own = {name: value for name, value in encoder.state_dict().items()}
    theirs = [value for name, value in state.items() if name.startswith("model.encoder.")][: len(own)]
    encoder.load_state_dict(dict(zip(own, theirs, strict=True)))
    wave = torch.from_numpy((noisy - noisy.mean()) / np.sqrt(noisy.var() + 1e-7))[None]
    with torch.no_grad():
        hidden = torch.relu(encoder(wave)[0] @ state["model.dense.0.weight"].T + state["model.dense.0.bias"])
        expected = (hidden @ state["model.dense.3.weight"].T + state["model.dense.3.bias"]).mean()
    row = score_pair(noisy, noisy, noisy, RATE, ("wvmos",), tools=found)
    assert row["wvmos"] == pytest.approx(float(expected), abs=1e-5)


def test_squim_is_torchaudios(noisy, files, found):
    from torchaudio.models import squim_objective_base

    network = squim_objective_base().eval()
    network.load_state_dict(torch.load(files["squim"], weights_only=True))
    with torch.no_grad():
        expected = [float(score) for score in network(torch.from_numpy(noisy[:16000])[None])]
    row = score_pair(*[noisy[:16000]] * 3, RATE, ("squim",), tools=found)
    assert [row[name] for name in ("squim_stoi", "squim_pesq", "squim_si_sdr")] == pytest.approx(
        expected, abs=1e-5
    )


def test_recogniser_hears_the_best_labels_without_repetitions(noisy, files, found):
    """With the published head of 32 outputs, three of which stand for no letter."""
    network = small_wav2vec2(32).eval()
    network.load_state_dict(torch.load(files["wav2vec2"], weights_only=True))
    with torch.no_grad():
        logits = network(torch.from_numpy(noisy)[None])[0][0]
    logits[:, 1:4] = -torch.inf
    labels = ["-", *"###", *wav2vec2._LABELS[1:]]
    path = [labels[place] for place in logits.argmax(dim=1)]
    kept = [label for place, label in enumerate(path) if place == 0 or path[place - 1] != label]
    expected = "".join(label for label in kept if label != "-").replace("|", " ").strip()
    assert wav2vec2.transcript(noisy, RATE, found.file("wav2vec2")) == expected
    assert expected


@pytest.mark.parametrize("metric", NETWORKS)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda wave: 0 * wave, "enhanced signal is silent"),
        (lambda wave: np.full_like(wave, np.nan), "enhanced signal has NaN"),
        (lambda wave: wave[:0], "enhanced signal is empty"),
        (lambda wave: wave[:1000], "shorter than"),
    ],
)
def test_what_cannot_be_scored_is_missing(noisy, found, metric, change, reason):
    wave = change(noisy)
    row = score_pair(wave, wave, wave, RATE, (metric,), tools=found)
    for column in table.columns((metric,)):
        assert np.isnan(row[column.name]) and reason in row[f"{column.name}_reason"]


def test_nisqa_refuses_what_is_too_long(found):
    wave = np.random.default_rng(0).standard_normal(8000 * 53).astype(np.float32)
    row = score_pair(wave, wave, wave, 8000, ("nisqa",), tools=found)
    assert row["nisqa_mos_reason"] == "longer than the 52 s that NISQA takes"


def test_other_rates_are_resampled(noisy, found):
    from diffse import audio

    wave = noisy[16000:32000]
    row = score_pair(*[wave] * 3, RATE, ("wvmos", "squim"), tools=found)
    wide = score_pair(*[audio.resample(wave, RATE, 48000)] * 3, 48000, ("wvmos", "squim"), tools=found)
    for name in ("wvmos", "squim_stoi"):
        assert wide[name] == pytest.approx(row[name], abs=2e-2)


def test_networks_leave_the_threads_of_the_caller_alone(noisy, found):
    threads = torch.get_num_threads()
    score_pair(*[noisy[:16000]] * 3, RATE, ("squim",), tools=found)
    assert torch.get_num_threads() == threads and torch.is_grad_enabled()


# ------------------------------------------------------------------------------------------------- weights


def test_metrics_without_weights_are_missing_or_refused(noisy):
    row = score_pair(*[noisy] * 3, RATE, NETWORKS)
    assert row["nisqa_mos_reason"] == "no weights: give evaluate.weights.nisqa"
    for name in NETWORKS:
        with pytest.raises(
            DiffseError, match=rf"evaluate\.weights\.{name}: these weights are not part of diffse"
        ):
            tools.find(settings.Evaluate(), (name,), Path())


def test_versions_name_the_weights(files, found):
    sha256 = hashlib.sha256(files["squim"].read_bytes()).hexdigest()
    version = table.version("squim", table.columns(("squim",))[0], found)
    assert version.startswith("torchaudio 2") and version.endswith(f", weights {sha256[:12]}")


def test_weights_are_relative_to_the_project_and_checked(files):
    home, name = files["squim"].parent, files["squim"].name
    sha256 = hashlib.sha256(files["squim"].read_bytes()).hexdigest()
    for given, expected in (("", sha256), (sha256.upper(), sha256)):
        options = settings.Evaluate(weights={"squim": settings.Weights(file=name, sha256=given)})
        assert weights.locate(options, "squim", home) == (home / name, expected)
    options = settings.Evaluate(weights={"squim": settings.Weights(file=name, sha256="0" * 64)})
    with pytest.raises(DiffseError, match=r"has the checksum .*, not 000000000000"):
        weights.locate(options, "squim", home)
    with pytest.raises(DiffseError, match="no such file"):
        weights.locate(with_files({"squim": Path("elsewhere.pt")}, "squim"), "squim", home)


@pytest.mark.parametrize(
    ("chosen", "line"),
    [
        (settings.Weights(), "give 'file' or 'download: true'"),
        (settings.Weights(file="a", download=True), "either 'file' or 'download'"),
        (settings.Weights(download=True, url="https://example.org/a"), "a download needs 'sha256'"),
    ],
)
def test_settings_that_name_no_weights_are_refused(chosen, line):
    with pytest.raises(DiffseError, match=line):
        weights.check(settings.Evaluate(weights={"wvmos": chosen}), "wvmos")


def test_nisqa_has_no_known_checksum_to_download_by():
    options = settings.Evaluate(weights={"nisqa": settings.Weights(download=True)})
    with pytest.raises(DiffseError, match=r"a download needs 'sha256'.* none is known"):
        weights.check(options, "nisqa")


@pytest.mark.parametrize("metric", NETWORKS)
def test_other_files_are_not_weights(noisy, tmp_path, metric):
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    options = with_files({metric: tmp_path / "other.pt"}, metric)
    with pytest.raises(DiffseError, match=r"other\.pt: not weights of"):
        score_pair(*[noisy] * 3, RATE, (metric,), tools=tools.find(options, (metric,), Path()))


def test_code_in_a_weights_file_is_not_executed(noisy, tmp_path):
    class Call:
        def __reduce__(self):
            return (Path(tmp_path / "executed").touch, ())

    torch.save({"state_dict": Call()}, tmp_path / "hostile.pt")
    options = with_files({"nisqa": tmp_path / "hostile.pt"}, "nisqa")
    with pytest.raises(DiffseError, match=r"hostile\.pt: .*was not loaded"):
        score_pair(*[noisy] * 3, RATE, ("nisqa",), tools=tools.find(options, ("nisqa",), Path()))
    assert not (tmp_path / "executed").exists()


def test_safetensors_are_weights_too(noisy, files, found, tmp_path):
    save_file(torch.load(files["nisqa"], weights_only=True)["model_state_dict"], tmp_path / "nisqa.safetensors")
    options = with_files({"nisqa": tmp_path / "nisqa.safetensors"}, "nisqa")
    row = score_pair(*[noisy] * 3, RATE, ("nisqa",), tools=tools.find(options, ("nisqa",), Path()))
    assert row["nisqa_mos"] == score_pair(*[noisy] * 3, RATE, ("nisqa",), tools=found)["nisqa_mos"]
    (tmp_path / "nisqa.safetensors").write_bytes(b"no weights")
    with pytest.raises(DiffseError, match="not readable as safetensors"):
        weights.read(tmp_path / "nisqa.safetensors")


# ------------------------------------------------------------------------------------------------ download


@pytest.fixture
def server(tmp_path, monkeypatch):
    """An https server on loopback with a certificate of its own: (folder that it serves, its address)."""
    folder = tmp_path / "served"
    folder.mkdir()
    certificate = make_certificate(tmp_path)
    handler = functools.partial(Quiet, directory=str(folder))
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    served.socket = context.wrap_socket(served.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("DIFFSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield folder, f"https://localhost:{served.server_port}"
    served.shutdown()
    served.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def make_certificate(folder: Path) -> Path:
    """Key and self-signed certificate for localhost in one file."""
    from datetime import datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now()
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    text = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain) + made.public_bytes(encoding)
    (folder / "certificate.pem").write_bytes(text)
    return folder / "certificate.pem"


def test_weights_are_downloaded_once_and_checked(server):
    folder, address = server
    (folder / "weights.pt").write_bytes(b"numbers")
    sha256 = hashlib.sha256(b"numbers").hexdigest()
    chosen = settings.Weights(download=True, url=f"{address}/weights.pt", sha256=sha256)
    options = settings.Evaluate(weights={"nisqa": chosen})
    path, checksum = weights.locate(options, "nisqa", Path())
    assert (path.read_bytes(), checksum) == (b"numbers", sha256)
    assert path.is_relative_to(paths.user_cache() / "weights")
    (folder / "weights.pt").unlink()
    assert weights.locate(options, "nisqa", Path()) == (path, checksum)  # from the cache
    path.write_bytes(b"damaged")
    with pytest.raises(DiffseError, match="cannot be downloaded"):
        weights.locate(options, "nisqa", Path())


def test_a_download_with_another_checksum_is_not_kept(server):
    folder, address = server
    (folder / "weights.pt").write_bytes(b"something else")
    chosen = settings.Weights(download=True, url=f"{address}/weights.pt", sha256="1" * 64)
    options = settings.Evaluate(weights={"nisqa": chosen})
    with pytest.raises(DiffseError, match=r"its checksum is .*, not 111111111111; it was not kept"):
        weights.locate(options, "nisqa", Path())
    assert not any((paths.user_cache() / "weights").iterdir())


def test_weights_come_through_https_only(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFSE_CACHE", str(tmp_path))
    chosen = settings.Weights(download=True, url=f"file://{tmp_path}/a", sha256="1" * 64)
    options = settings.Evaluate(weights={"squim": chosen})
    with pytest.raises(DiffseError, match="https only"):
        weights.locate(options, "squim", Path())
    with pytest.raises(Missing):
        tools.NONE.file("squim")
    assert dataclasses.replace(tools.NONE) == tools.NONE
