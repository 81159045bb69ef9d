"""The checks before a submission: each is shown to fail on its fault, all are told at once, nothing is sent."""

import dataclasses
import datetime
import hashlib
import ipaddress
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import small_project
import submitting
from http_stand_in import Answer, Fault, Request, StandIn
from kfp_server import Server
from submitting import FULL, PARAMS

from diffse import objects
from diffse.errors import DiffseError
from pipelines import api, command_line, full, preflight, registry, submission

SECRET = "s3cret-of-the-team"


@pytest.fixture
def folder(tmp_path) -> Path:
    small_project.write_params(tmp_path, PARAMS)
    return tmp_path


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    for variable in submitting.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", "/nowhere/token")
    monkeypatch.setattr(submission, "PATIENCE", api.Patience(answer=20.0, sleep=lambda _: None))


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture
def team():
    """A server of several users; one of them may use the namespace `speech`."""
    with Server(users={f"Bearer {SECRET}": {"speech"}, f"session={SECRET}": {"speech"}}) as server:
        yield server


def check(capsys, host: str, folder: Path, *options: str) -> tuple[int, str]:
    """Exit code of `full.py --check` and all that it prints."""
    args = submitting.arguments("--check", host, folder, *options)
    try:
        code = submission.submit(args, lambda _: submitting.built())
    except DiffseError as error:
        code = error.exit_code
        print(error)
    said = capsys.readouterr()
    return code, said.out + said.err


def failed(text: str) -> list[str]:
    return re.findall(r"^(\w+): failed", text, re.M)


# ------------------------------------------------------------------------------------------ the cluster


def test_nothing_fails(server, folder, capsys):
    code, text = check(capsys, server.url, folder)
    assert code == 0
    assert re.findall(r"^(\w+): ok", text, re.M) == ["settings", "host", "rights"]
    assert "image: not checked: diffse-python" in text
    assert "sources: not checked: /workspace/diffse is on the cluster's volume" in text
    assert {request.method for request in server.seen} == {"GET"}


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("http://127.0.0.1:9", "cannot be reached: Connection refused"),
        ("http://no-such-host.invalid", "cannot be reached: "),
        ("kubeflow.my.org", "write http:// or https://"),
        ("http://me:secret@kubeflow.my.org", "--host holds a user name"),
        ("http://kubeflow.my.org/#/runs", "without what follows '#'"),
    ],
)
def test_wrong_hosts(folder, capsys, host, message):
    code, text = check(capsys, host, folder)
    assert code == 2
    assert failed(text) == ["host"]
    assert message in text
    assert "secret" not in text
    assert "rights: not checked: the host does not answer" in text


def test_a_login_page_is_no_answer(server, folder, capsys):
    page = Answer(200, text="<html>log in</html>")
    server.faults = [Fault("answer", path="healthz", answer=page)]
    assert "answers, but not as Kubeflow Pipelines does" in check(capsys, server.url, folder)[1]
    elsewhere = Answer(302, text="", headers={"Location": "http://127.0.0.1:9/dex"})
    server.faults = [Fault("answer", path="healthz", answer=elsewhere)]
    assert "sends to another page: log in again" in check(capsys, server.url, folder)[1]


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for loopback that signs itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(1))
    signed = made.add_extension(address, False).sign(key, hashes.SHA256())
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return files


def test_certificates(folder, capsys):
    chain, key = certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    with Server() as server:
        server.encrypt(context)
        _, text = check(capsys, server.url, folder)
        assert failed(text) == ["host"]
        assert "its certificate is not trusted (self-signed certificate); name your authority's" in text
        assert check(capsys, server.url, folder, "--ca-file", str(chain))[0] == 0
        _, text = check(capsys, server.url, folder, "--ca-file", str(folder / "none.pem"))
        assert "none.pem: no such file" in text


def test_a_host_without_tls(server, folder, capsys):
    _, text = check(capsys, server.url.replace("http:", "https:"), folder)
    assert "does not speak TLS; write http://" in text


# --------------------------------------------------------------------------------------------- who we are


def test_who_is_not_known(team, folder, capsys):
    _, text = check(capsys, team.url, folder, "--namespace", "speech")
    assert failed(text) == ["rights"]
    assert "answers 401" in text
    assert "(no credentials); log in again" in text


def test_a_namespace_of_others(team, folder, capsys, monkeypatch):
    monkeypatch.setenv("DIFFSE_KFP_TOKEN", SECRET)
    _, text = check(capsys, team.url, folder, "--namespace", "vision")
    assert failed(text) == ["rights"]
    assert "answers 403" in text
    assert "no rights in namespace 'vision', or it does not exist" in text
    _, text = check(capsys, team.url, folder)
    assert "serves several users: name yours with --namespace" in text


def credentials(kind: str, folder: Path, monkeypatch) -> list[str]:
    file = folder / "secret"
    cookie = kind.startswith("cookie")
    file.write_text(f"session={SECRET}\n" if cookie else f"{SECRET}\n")
    if kind == "service account":
        monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))
        return ["--service-account"]
    if kind == "pod":
        monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))
        return []
    if kind.endswith("file"):
        return ["--cookie-file" if cookie else "--token-file", str(file)]
    monkeypatch.setenv("DIFFSE_KFP_COOKIE" if cookie else "DIFFSE_KFP_TOKEN", file.read_text())
    return []


KINDS = ["token file", "token variable", "cookie file", "cookie variable", "service account", "pod"]


@pytest.mark.parametrize("kind", KINDS)
def test_credentials(team, folder, capsys, monkeypatch, kind):
    options = credentials(kind, folder, monkeypatch)
    code, text = check(capsys, team.url, folder, "--namespace", "speech", *options)
    assert code == 0, text
    assert "rights: ok: namespace 'speech'" in text
    assert SECRET not in text


def test_no_secret_in_what_a_submission_prints_and_keeps(team, folder):
    """Through the script, with its whole output, also when the server repeats the secret in its answer."""
    (folder / "secret").write_text(SECRET)
    options = [
        "--submit",
        "--namespace",
        "speech",
        "--token-file",
        folder / "secret",
        "--params",
        "params.yaml",
    ]
    done = subprocess.run(
        [sys.executable, FULL, *options, "--host", team.url], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    kept = [file for file in folder.rglob("*") if file.is_file() and file.name != "secret"]
    assert not [file for file in kept if SECRET.encode() in file.read_bytes()]
    assert {run["experiment_id"] for run in team.runs.values()} == set(team.experiments)
    assert [one["namespace"] for one in team.experiments.values()] == ["speech"]


def test_a_renewed_token_is_read_again(team, folder, monkeypatch):
    file = folder / "secret"
    file.write_text("old")
    args = submitting.arguments("--check", team.url, folder, "--token-file", str(file))
    client = submission.connect(args)
    with pytest.raises(api.Refused, match="answers 401"):
        client.read(client.runs.run_service_list_runs, namespace="speech")
    file.write_text(SECRET)
    client.read(client.runs.run_service_list_runs, namespace="speech")


@pytest.mark.parametrize(
    ("content", "message"), [("", "holds nothing"), ("a\nb", "holds several lines"), (None, "cannot be read")]
)
def test_useless_secrets(team, folder, capsys, content, message):
    if content is not None:
        (folder / "secret").write_text(content)
    _, text = check(capsys, team.url, folder, "--token-file", str(folder / "secret"))
    assert message in text
    assert failed(text) == ["host"]


def test_a_secret_in_the_open_is_noted():
    assert preflight._in_the_open("http://kubeflow.my.org")
    assert not preflight._in_the_open("https://kubeflow.my.org")
    assert not preflight._in_the_open("http://ml-pipeline.kubeflow.svc.cluster.local:8888")
    assert not preflight._in_the_open("http://127.0.0.1:8888")


# ---------------------------------------------------------------------------------------------- the image


class Registry(StandIn):
    """A registry with one image, `team/diffse-python:1`, that gives a token to anyone, or to nobody."""

    def __init__(self, open_to_all: bool = True) -> None:
        self.open_to_all = open_to_all
        super().__init__()

    def handle(self, request: Request) -> Answer:
        if request.path == "/token":
            return Answer(200 if self.open_to_all else 401, {"token": f"for {request.query['scope']}"})
        scope = "repository:team/diffse-python:pull"
        if request.headers.get("authorization") != f"Bearer for {scope}":
            challenge = f'Bearer realm="{self.url}/token",service="stand-in",scope="{scope}"'
            return Answer(401, {}, {"WWW-Authenticate": challenge})
        digest = f"sha256:{hashlib.sha256(b'1').hexdigest()}"
        if request.path in (f"/v2/team/diffse-python/manifests/{one}" for one in ("1", digest)):
            return Answer(200, {}, {"Docker-Content-Digest": digest})
        return Answer(404)


def image_check(image: str) -> str:
    (outcome,) = preflight.run([preflight.images([image])])
    return str(outcome)


def test_images():
    with Registry() as images:
        name = f"{images.url.removeprefix('http://')}/team/diffse-python"
        assert image_check(f"{name}:1").startswith(f"image: ok: {name}:1 (sha256:")
        assert "image: ok" in image_check(f"{name}@sha256:{hashlib.sha256(b'1').hexdigest()}")
        assert image_check(f"{name}:2").startswith(f"image: failed: {name}:2 is not in the registry")
        images.open_to_all = False
        assert "not checked" in image_check(f"{name}:1")
    (outcome,) = preflight.run([preflight.images([f"{name}:1"], cached=True)])
    assert outcome.text.endswith("name its digest, or --no-cache")  # moving a tag is not seen by a cache
    said = image_check(f"{name}:1")
    assert "not checked" in said
    assert "cannot be reached from here (Connection refused)" in said


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("diffse-python:0.1.0", ("", "diffse-python", "0.1.0")),
        ("team/diffse-python", ("", "team/diffse-python", "latest")),
        ("localhost:5000/a/b:c", ("localhost:5000", "a/b", "c")),
        (f"my.org/a:b@sha256:{'0' * 64}", ("my.org", "a", f"sha256:{'0' * 64}")),
    ],
)
def test_names_of_images(image, parts):
    found = registry.parse(image)
    assert (found.registry, found.repository, found.version) == parts


def test_what_is_no_name_of_an_image():
    with pytest.raises(DiffseError, match="names no image"):
        registry.parse("my.org/a@sha256:1")


# ------------------------------------------------------------------------------------- storage and sources


def test_storage(store):
    import boto3

    boto3.client("s3").put_object(Bucket=store.removeprefix("s3://"), Key="clean/a.wav", Body=b"1")
    assert storage_check(f"{store}/clean").state == "ok"
    assert storage_check(f"{store}/clean/a.wav").state == "ok"
    assert storage_check(f"{store}/none").text == f"{store}/none: nothing is there"
    outcome = storage_check("s3://no-such-bucket/x")
    assert outcome.state == "failed"
    assert "\n" not in outcome.text
    assert preflight.run([preflight.storages(Params(()), f"{store}/runs")])[0].state == "ok"  # written later


@dataclasses.dataclass(frozen=True)
class Params:
    """Settings with a location somewhere."""

    prepare: tuple


def storage_check(url: str) -> preflight.Outcome:
    checks = preflight.storages(Params(({"speech": [url, "local"]},)))
    assert len(checks) == 1
    return preflight.run([checks])[0]


def test_sources(folder, tmp_path):
    volume = tmp_path / "volume"
    built = submitting.built()
    project = dataclasses.replace(built.project, params_file=folder / "params.yaml", workspace=str(volume))

    def said() -> str:
        return str(preflight.run([preflight.sources(project, built.package.corpora)])[0])

    assert said() == f"sources: not checked: {volume} is on the cluster's volume, which is not mounted here"
    volume.mkdir()
    assert "params.yaml: no such file; copy the project" in said()
    (volume / "params.yaml").write_text("corpora: []\n")
    assert f"differs from {folder}/params.yaml" in said()
    (volume / "params.yaml").write_bytes((folder / "params.yaml").read_bytes())
    assert said() == f"sources: failed: no recordings in {volume}/sources/near"
    (volume / "sources/near").mkdir(parents=True)
    (volume / "sources/near/a.wav").touch()
    assert "sources: ok" in said()


def test_sources_on_s3(folder, store):
    built, workspace = submitting.built(), f"{store}/project"
    project = dataclasses.replace(built.project, params_file=folder / "params.yaml", workspace=workspace)

    def said() -> str:
        return str(preflight.run([preflight.sources(project, built.package.corpora)])[0])

    assert said() == f"sources: failed: {workspace}/params.yaml: no such file; copy the project there"
    objects.write(f"{workspace}/params.yaml", b"corpora: []")
    assert f"{workspace}/params.yaml differs from {folder}/params.yaml" in said()
    objects.write(f"{workspace}/params.yaml", (folder / "params.yaml").read_bytes())
    assert said() == f"sources: failed: no recordings in {workspace}/sources/near"
    objects.write(f"{workspace}/sources/near/a.wav", b"")
    assert said() == f"sources: ok: {workspace}"


# ------------------------------------------------------------------------------------------------ together


def test_all_faults_are_told_at_once(team, folder, capsys):
    (folder / "params.yaml").write_text("corpora: [near]\nwrong: 1\n")
    options = ["--check", "--host", team.url, "--params", str(folder / "params.yaml")]
    assert command_line.main(full.PIPELINE, options) == 2
    text = "".join(capsys.readouterr())
    assert failed(text) == ["settings", "rights"]
    assert "unknown setting 'wrong'" in text
    assert text.splitlines()[-1].endswith("nothing was uploaded: 2 of 3 checks failed (settings, rights)")


def test_a_check_can_be_left_out(team, folder, capsys):
    code, text = check(capsys, team.url, folder, "--skip", "rights")
    assert code == 0
    assert "rights: not checked: left out by --skip" in text
