"""Downloads from a server that breaks off, lies and changes; archives that try to leave their folder."""

import dataclasses
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import miniature_corpora as miniature
import pytest
from faulty_server import Server, serving

from diffse import cli, objects, paths
from diffse.data import archives, downloads, prepare, sources
from diffse.data.corpora import facts, voicebank
from diffse.data.corpora.facts import Download
from diffse.errors import DiffseError
from diffse.settings import Params

DATA = bytes(range(256)) * 1200  # some hundred kilobytes


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(downloads, "WAIT_SECONDS", 0.0)


@pytest.fixture
def server():
    with serving(a__bin=DATA) as server:
        yield server


def download(server: Server, checksum: str | None = None, **more) -> Download:
    known = f"sha256:{hashlib.sha256(DATA).hexdigest()}" if checksum is None else checksum
    return Download("a.bin", f"{server.address}/a.bin", known, **more)


def refused(action, *words: str) -> str:
    with pytest.raises(DiffseError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text
    return text


# ------------------------------------------------------------------------------------------- downloads


def test_what_arrives_is_what_is_served_and_is_not_fetched_twice(server, tmp_path):
    path = downloads.fetch(download(server), tmp_path)
    assert path.read_bytes() == DATA
    downloads.fetch(download(server), tmp_path)
    assert server.asked == [("a.bin", "")]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.bin", "downloads.json"]


def test_a_transfer_that_breaks_off_goes_on_where_it_was(server, tmp_path):
    server.break_after = [1000, 50_000, 0, 70_000]
    assert downloads.fetch(download(server), tmp_path).read_bytes() == DATA
    assert [wanted for _, wanted in server.asked] == [
        "", "bytes=1000-", "bytes=51000-", "bytes=51000-", "bytes=121000-"
    ]  # fmt: skip


def test_a_later_run_goes_on_with_what_an_earlier_one_left(server, tmp_path):
    server.break_after = [1000] + [0] * 10
    refused(lambda: downloads.fetch(download(server), tmp_path), "ended after 1000 of", "run the command again")
    assert not (tmp_path / "a.bin").exists()
    server.break_after, server.asked = [], []
    assert downloads.fetch(download(server), tmp_path).read_bytes() == DATA
    assert server.asked == [("a.bin", "bytes=1000-")]


def test_a_run_that_was_killed_before_the_last_rename_fetches_nothing_again(server, tmp_path):
    downloads.fetch(download(server), tmp_path)
    (tmp_path / "a.bin").rename(tmp_path / ".a.bin.part")
    etag = hashlib.md5(DATA).hexdigest()
    (tmp_path / ".a.bin.json").write_text(f'{{"validator": "\\"{etag}\\""}}')
    assert downloads.fetch(download(server), tmp_path).read_bytes() == DATA
    assert server.asked[1:] == [("a.bin", f"bytes={len(DATA)}-")]


def test_halves_of_two_versions_are_not_joined(server, tmp_path):
    server.break_after = [1000] + [0] * 10
    refused(lambda: downloads.fetch(download(server), tmp_path))
    server.break_after, server.files["a.bin"] = [], DATA[::-1]
    wanted = f"sha256:{hashlib.sha256(DATA[::-1]).hexdigest()}"
    assert downloads.fetch(download(server, wanted), tmp_path).read_bytes() == DATA[::-1]


@pytest.mark.parametrize("missing", ["ranges", "etag"])
def test_a_server_that_cannot_go_on_is_asked_from_the_beginning(server, tmp_path, missing):
    setattr(server, missing, False)
    server.break_after = [1000, 2000]
    assert downloads.fetch(download(server), tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("claim", [len(DATA) + 100, len(DATA) - 100])
def test_a_server_that_lies_about_the_length(server, tmp_path, claim):
    server.claim, server.etag = claim, False
    words = (
        ("not what is published",) if claim < len(DATA) else ("ended after", "attempts brought nothing more")
    )
    refused(lambda: downloads.fetch(download(server), tmp_path), *words)
    assert not (tmp_path / "a.bin").exists()


def test_a_wrong_byte_is_found_and_nothing_is_kept(server, tmp_path):
    server.files["a.bin"] = b"\x01" + DATA[1:]
    refused(lambda: downloads.fetch(download(server), tmp_path), "is not what is published for it", "sha256:")
    assert list(tmp_path.iterdir()) == []
    server.files["a.bin"] = DATA
    assert downloads.fetch(download(server), tmp_path).read_bytes() == DATA


def test_the_first_download_without_a_checksum_is_trusted_and_holds(server, tmp_path):
    unknown = download(server, "")
    downloads.fetch(unknown, tmp_path).unlink()
    assert downloads.recorded(tmp_path)["a.bin"]["checksum"] == f"sha256:{hashlib.sha256(DATA).hexdigest()}"
    server.files["a.bin"] = b"\x01" + DATA[1:]
    refused(lambda: downloads.fetch(unknown, tmp_path), "recorded at the first download", "downloads.json")
    server.files["a.bin"] = DATA
    assert downloads.fetch(unknown, tmp_path).read_bytes() == DATA


def test_passing_faults_of_a_server_are_waited_for_and_lasting_ones_told(server, tmp_path):
    server.status = [503, 500]
    assert downloads.fetch(download(server), tmp_path).read_bytes() == DATA
    server.status = [403]
    refused(lambda: downloads.fetch(download(server), tmp_path / "b"), "answers 403")
    other = Download("b.bin", f"{server.address}/b.bin", "md5:0")
    refused(lambda: downloads.fetch(other, tmp_path), "answers 404")
    nobody = Download("a.bin", "http://127.0.0.1:9/a.bin")
    refused(lambda: downloads.fetch(nobody, tmp_path / "c"), "cannot be reached")


def test_only_encrypted_addresses_are_fetched_wherever_a_redirection_leads(server, tmp_path):
    plain = Download("a.bin", "http://example.com/a.bin")
    refused(lambda: downloads.fetch(plain, tmp_path), "only https")
    for place in ("file:///etc/passwd", "ftp://127.0.0.1/a"):
        refused(lambda place=place: downloads.fetch(Download("a", place), tmp_path), "only https")
    server.redirect = "file:///etc/passwd"
    refused(lambda: downloads.fetch(download(server), tmp_path), "302")


# -------------------------------------------------------------------------------------------- archives


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return path


def tarred(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_archives_are_unpacked_and_merged(tmp_path, pack):
    (tmp_path / "to/a").mkdir(parents=True)
    (tmp_path / "to/a/old").write_text("stays")
    files = {"a/b/c.txt": b"c", "a/d.txt": b"d", "__MACOSX/a/x": b"", "a/.DS_Store": b""}
    assert archives.unpack(pack(tmp_path / "x.bin", files), tmp_path / "to") == ["a"]
    found = {
        path.relative_to(tmp_path / "to").as_posix() for path in (tmp_path / "to").rglob("*") if path.is_file()
    }
    assert found == {"a/b/c.txt", "a/d.txt", "a/old"}


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize(
    "name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "a\\..\\out.txt", "C:out.txt"]
)
def test_no_member_leads_out_of_the_folder(tmp_path, pack, name):
    archive = pack(tmp_path / "x.bin", {"good.txt": b"1", name: b"2"})
    refused(lambda: archives.unpack(archive, tmp_path / "to"), "leads out")
    assert list((tmp_path / "to").iterdir()) == []
    assert not (tmp_path / "out.txt").exists()


def test_links_and_devices_are_refused(tmp_path):
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        with tarfile.open(tmp_path / "x.tar", "w") as packed:
            member = tarfile.TarInfo("link")
            member.type, member.linkname = kind, "/etc/passwd"
            packed.addfile(member)
        refused(lambda: archives.unpack(tmp_path / "x.tar", tmp_path / "to"), "no plain file")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        member = zipfile.ZipInfo("link")
        member.external_attr = 0o120777 << 16
        packed.writestr(member, "/etc/passwd")
    refused(lambda: archives.unpack(tmp_path / "x.zip", tmp_path / "to"), "no plain file")


def test_damaged_archives_and_full_disks_leave_nothing(tmp_path, monkeypatch):
    archive = zipped(tmp_path / "x.zip", {"a.txt": DATA})
    whole = archive.read_bytes()
    archive.write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
    refused(lambda: archives.unpack(archive, tmp_path / "to"), "cannot be unpacked", "fetch it again")
    (tmp_path / "no.zip").write_bytes(b"nothing")
    refused(lambda: archives.unpack(tmp_path / "no.zip", tmp_path / "to"), "neither a zip nor a tar")
    archive.write_bytes(whole)
    monkeypatch.setattr(archives, "_SPARE_BYTES", 1 << 62)
    refused(lambda: archives.unpack(archive, tmp_path / "to"), "GB free")
    assert list((tmp_path / "to").iterdir()) == []


# ---------------------------------------------------------------------------------------- whole corpora


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A project, and a server that publishes the miniature of VoiceBank-DEMAND as its archives."""
    miniature.vbd(tmp_path / "made")
    with serving() as server:
        items = []
        for name in (*voicebank._MD5, "logfiles"):
            part = tmp_path / "made" / name
            inside = sorted(part.iterdir()) if part.is_dir() else sorted((tmp_path / "made").glob("log_*"))
            prefix = f"{name}/" if part.is_dir() else ""
            archive = zipped(
                tmp_path / f"{name}.zip", {prefix + path.name: path.read_bytes() for path in inside}
            )
            server.files[archive.name] = archive.read_bytes()
            known = f"md5:{hashlib.md5(archive.read_bytes()).hexdigest()}" if part.is_dir() else ""
            gives = name if part.is_dir() else "log_trainset_28spk.txt"
            items.append(Download(archive.name, f"{server.address}/{archive.name}", known, "", gives))
        part = facts.Part("", "small", "https://x", "CC", "c", ("l",), tuple(items))
        monkeypatch.setattr(voicebank, "PART", part)
        project = tmp_path / "project"
        project.mkdir()
        (project / "params.yaml").write_text(
            "corpora: [vbd]\ntrain_corpora: []\nrecipes: []\ntrain: {}\nenhance: {}\n"
            "prepare: {vbd: {preset: vbd, complete: false, processes: 1}}\n"
        )
        yield project, server


def test_a_corpus_is_fetched_unpacked_and_prepared_by_two_commands(published, monkeypatch, capsys):
    project, server = published
    monkeypatch.chdir(project)
    server.break_after = [5000]
    assert cli.main(["data", "fetch", "vbd"]) == 0
    assert "5 files fetched" in capsys.readouterr().out
    assert cli.main(["prepare", "vbd"]) == 0
    there = {path.name for path in (project / "sources/vbd").iterdir()}
    assert not {name for name in there if name.endswith((".zip", ".part"))}
    count = len(server.asked)
    assert cli.main(["data", "fetch", "vbd"]) == 0
    assert "0 files fetched" in capsys.readouterr().out
    assert len(server.asked) == count
    half = project / "sources/vbd/clean_testset_wav"  # killed while it unpacked: the archive is still there
    (half / "p232_001.wav").unlink()
    (project / "sources/vbd/clean_testset_wav.zip").write_bytes(server.files["clean_testset_wav.zip"])
    assert cli.main(["data", "fetch", "vbd"]) == 0
    assert (half / "p232_001.wav").exists() and not half.with_suffix(".zip").exists()
    assert len(server.asked) == count
    assert "1 files fetched" in capsys.readouterr().out
    assert cli.main(["data", "about", "vbd"]) == 0
    assert "the layout is complete" in capsys.readouterr().out


def test_what_cannot_be_fetched_says_where_to_get_it(tmp_path):
    settings = miniature.SETTINGS["wsj0_chime3"]
    params = Params(("w",), (), (), {"w": settings}, {}, {})
    refused(
        lambda: sources.fetch(params, "w", tmp_path), "LDC93S6A", "there is no folder wsj0", "docs/corpora.md"
    )
    assert not (tmp_path / "sources").exists()


# ------------------------------------------------------------------------------------------ from a store


def test_a_source_in_a_store_is_copied_once_and_prepared(store, tmp_path):
    made = tmp_path / "made"
    miniature.wsj0_chime3(made)
    url = objects.join(store, "speech", "corpora")
    for path in sorted(item for item in made.rglob("*") if item.is_file()):
        objects.upload(path, objects.join(url, path.relative_to(made).as_posix()))
    settings = dataclasses.replace(miniature.SETTINGS["wsj0_chime3"], source=url)
    params = Params(("w",), (), (), {"w": settings}, {}, {})
    assert prepare.run(params, "w", tmp_path)["utterances"] == miniature.UTTERANCES["wsj0_chime3"]
    source = paths.source(tmp_path, "w")
    assert sources.copy(url, source) == 0, "nothing is new"
    changed = next(source.rglob("*.WV1"))
    changed.write_bytes(b"cut off")
    objects.write(objects.join(url, "chime3/extra.txt"), b"new")
    assert sources.copy(url, source) == 2
    assert changed.read_bytes()[:7] == b"NIST_1A"


def test_keys_that_are_no_paths_and_empty_prefixes_are_refused(store, tmp_path):
    refused(lambda: sources.copy(objects.join(store, "none"), tmp_path), "holds no objects")
    objects.write(f"{store}/a/x/../../../out", b"1")
    refused(lambda: sources.copy(f"{store}/a", tmp_path / "to"), "no path below the prefix")
    refused(lambda: sources.copy("https://x/y", tmp_path), "give s3://")
    assert not (tmp_path / "out").exists()
