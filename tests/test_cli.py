"""The command line: what it calls, what it says about mistakes, and what it records."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_project

from diffse import __version__, cli, errors, runs, steps


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    folder = small_project.create(tmp_path)
    monkeypatch.chdir(folder)
    return folder


def behave(monkeypatch, verb: str, action) -> None:
    """Let a verb do `action(root)` instead of its work."""
    _, text, names = cli.VERBS[verb]
    monkeypatch.setitem(cli.VERBS, verb, (lambda args, params, root: action(root), text, names))


def wrote(folder: str):
    def action(root: Path) -> dict:
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "manifest.json").write_text("[1]")
        return {"utterances": 1}

    return action


def the_record(folder: Path) -> dict:
    (record,) = small_project.records(folder)
    return record


# --------------------------------------------------------------------------------------------- mistakes

MISTAKES = [
    (["prepare", "nowhere"], "params.yaml: no 'nowhere' under 'prepare' (there: near, far)"),
    (["train", "bridge"], "'bridge' is not a system; write <recipe>.<corpus>, for example bridge_demo.demo"),
    (["train", "brigde.near"], "params.yaml: no 'brigde' under 'train' (there: score, bridge)"),
    (["train", "bridge.nowhere"], "params.yaml: no 'nowhere' under 'prepare' (there: near, far)"),
    (["enhance", "unprocessed", "near"], "'unprocessed' is not a system"),
    (
        ["evaluate", "near", "near"],
        "'near' is not a system; write <recipe>.<corpus>, for example bridge_demo.demo, or a name under "
        "'external' in params.yaml (there: none)",
    ),
    (["enhance", "../near", "near"], "'../near' is not a system"),
    (["train", "theirs"], "'theirs' is not a system"),
    (["check", "checkpoint", "theirs"], "'theirs' is not a system"),
    (["estimate", "nowhere"], "params.yaml: no 'nowhere' under 'prepare' (there: near, far)"),
    (["sweep", "fine"], "params.yaml: no 'fine' under 'sweeps' (there: none)"),
    (["swap", "other"], "params.yaml: no 'other' under 'swaps' (there: none)"),
    (
        ["check", "audio", "near"],
        "'audio' has no gate (allowed: mixtures, cache, checkpoint, enhanced, metrics)",
    ),
    (["check", "enhanced", "bridge.near"], "write 'diffse check enhanced SYSTEM CORPUS'"),
    (["check", "checkpoint", "unprocessed"], "'unprocessed' is not a system"),
    (["prepare", "near", "--params", "none.yaml"], "none.yaml: no such file"),
    (["prepare", "near", "--params", "."], ".: is a folder; name the file, such as params.yaml"),
    (["prepare", "near", "--needs", "data"], "'data' is not a reference"),
    (["prepare", "near", "--needs", "data/near@sha256:00"], "data/near: missing or empty; run the step"),
    (
        ["prepare", "near", "--settings", "{}"],
        "params.yaml: prepare.near changed since the pipeline was compiled",
    ),
    (["prepare", "near", "--settings", "{"], "--settings is not JSON"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_line(project, capsys, arguments, message):
    assert cli.main(arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith("diffse: ")
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert not said.out
    assert not (project / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepair", "near"], "invalid choice: 'prepair'"),
        (["prepare"], "required: corpus"),
        (["train", "bridge.near", "--epochs", "3"], "unrecognized arguments: --epochs 3"),
        (["enhance", "bridge.near", "near", "--steps", "3"], "--steps needs --checkpoint"),
        (["enhance", "bridge.near", "near", "--overwrite"], "--overwrite needs --checkpoint"),
        (["enhance", "bridge.near", "near", "--ema", "0.1"], "--ema needs --checkpoint"),
        (["enhance", "bridge.near", "near", "--predictor", "m"], "--predictor needs --checkpoint"),
        (["import", "model.ckpt"], "required: folder"),
        (["enhance", "sources", "out"], "to enhance 'sources', add --checkpoint models/<system>/best"),
        (["enhance", "a", "b", "--checkpoint", "x", "--steps", "few"], "invalid int value: 'few'"),
        ([], "required: VERB"),
    ],
)
def test_wrong_usage_shows_the_usage(project, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: diffse")
    assert message in said


def test_an_unknown_setting_is_recorded_too(project, capsys):
    params = json.loads(json.dumps(small_project.PARAMS))
    params["train"]["bridge"]["step"] = 3
    small_project.write_params(project, params)
    assert cli.main(["prepare", "near"]) == 2
    assert "unknown setting 'train.bridge.step'; did you mean 'steps'?" in capsys.readouterr().err
    assert the_record(project)["state"] == "failed"


# ---------------------------------------------------------------------------------------------- endings


def fail_with(error: BaseException):
    def action(root: Path) -> dict:
        raise error

    return action


def fill_the_disk(root: Path) -> dict:
    with open("/dev/full", "w") as stream:
        stream.write("x" * 100_000)
    return {}


def library_on_a_full_disk(root: Path) -> dict:
    """Libraries wrap the system's error in one of their own."""
    try:
        fill_the_disk(root)
    except OSError as error:
        raise RuntimeError("writer failed") from error
    return {}


def library_that_says_it_in_text(root: Path) -> dict:
    raise RuntimeError(f"cannot write shard: {os.strerror(28)}")


ENDINGS = [
    (fail_with(errors.DiffseError("a.wav: empty; remove it")), 2, "diffse: a.wav: empty; remove it\n"),
    (
        fail_with(errors.GateFailed("near: duration: 3 too short\nnear: level: 1 silent")),
        1,
        "near: level: 1 silent",
    ),
    (fill_the_disk, 2, "the disk is full; free some space"),
    (library_on_a_full_disk, 2, "the disk is full; free some space"),
    (library_that_says_it_in_text, 2, "the disk is full; free some space"),
    (fail_with(PermissionError(13, "Permission denied", "data/x.flac")), 2, "data/x.flac: permission denied"),
    (fail_with(OSError(30, "Read-only file system", "data")), 2, "data: the file system can only be read"),
    (fail_with(KeyboardInterrupt()), 130, "diffse: stopped; the same command continues or starts again\n"),
]


@pytest.mark.parametrize(("action", "code", "message"), ENDINGS)
def test_an_ending_has_its_code_and_line(project, monkeypatch, capsys, action, code, message):
    behave(monkeypatch, "prepare", action)
    assert cli.main(["prepare", "near"]) == code
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    record = the_record(project)
    assert record["state"] == ("interrupted" if code == 130 else "failed")
    assert record["error"] and "\n" not in record["error"]


def test_a_defect_keeps_its_traceback_and_is_recorded(project, monkeypatch):
    behave(monkeypatch, "prepare", fail_with(ZeroDivisionError("0 / 0")))
    with pytest.raises(ZeroDivisionError):
        cli.main(["prepare", "near"])
    assert the_record(project)["error"] == "ZeroDivisionError: 0 / 0"


def test_a_step_that_writes_nothing_fails(project, monkeypatch, capsys):
    behave(monkeypatch, "prepare", lambda root: {})
    assert cli.main(["prepare", "near"]) == 2
    assert "data/near/mixtures: 'diffse prepare near' did not write it" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_ends_with_one_line_and_a_record(project, number, code):
    waiting = """
import signal, sys, time
from pathlib import Path
from diffse import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores Ctrl-C
def wait(args, params, root):
    Path("started").touch()
    time.sleep(60)
cli.VERBS["prepare"] = (wait, *cli.VERBS["prepare"][1:])
sys.exit(cli.main(["prepare", "near"]))
"""
    process = subprocess.Popen([sys.executable, "-c", waiting], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not Path("started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == code
    assert said == "diffse: stopped; the same command continues or starts again\n"
    assert the_record(project)["state"] == "interrupted"


def test_a_forked_worker_ends_quietly_on_sigterm(project, monkeypatch, capfd):
    def fork(root: Path) -> dict:
        import multiprocessing

        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()
        time.sleep(0.5)  # until it sleeps
        worker.terminate()
        worker.join(30)
        assert worker.exitcode
        return wrote("data/near/mixtures")(root)

    behave(monkeypatch, "prepare", fork)
    assert cli.main(["prepare", "near"]) == 0
    assert not capfd.readouterr().err


# ---------------------------------------------------------------------------------------------- records


def test_a_record_says_what_ran_on_what(project, monkeypatch):
    behave(monkeypatch, "prepare", wrote("data/near/mixtures"))
    assert cli.main(["prepare", "near"]) == 0
    record = the_record(project)
    (file,) = (project / "runs").glob("*.json")
    assert file.name.endswith("-prepare-near.json")
    assert (record["verb"], record["names"], record["arguments"]) == ("prepare", ["near"], ["prepare", "near"])
    assert (record["state"], record["error"], record["result"]) == ("ok", None, {"utterances": 1})
    assert record["settings"]["prepare.near"]["snr_db"]["test"] == [0.0, 10.0]  # defaults filled in
    assert record["output"] == steps.reference(project, Path("data/near/mixtures"))
    assert record["seconds"] >= 0
    assert record["code"]["package"] == __version__
    assert record["host"]["cores"] >= 1
    assert record["host"]["python"].startswith("3.")


def test_a_record_names_the_data_version(project, monkeypatch):
    mixtures = project / "data/near/mixtures"
    mixtures.mkdir(parents=True)
    (mixtures / "manifest.parquet").write_bytes(b"pairs")
    behave(monkeypatch, "cache", wrote("data/near/cache"))
    assert cli.main(["cache", "near"]) == 0
    assert the_record(project)["data"] == {"near": runs.data_version(project, "near")}


def test_a_record_holds_no_password_of_a_url(project, monkeypatch):
    message = "s3://key:secret@host/bucket: no such bucket; check the name"
    behave(monkeypatch, "prepare", fail_with(errors.DiffseError(message)))
    cli.main(["prepare", "near"])
    (file,) = (project / "runs").glob("*.json")
    assert "secret" not in file.read_text()
    assert the_record(project)["error"] == "s3://***@host/bucket: no such bucket; check the name"


def test_a_record_may_hold_numbers_that_json_lacks(project, monkeypatch):
    action = wrote("data/near/mixtures")
    behave(monkeypatch, "prepare", lambda root: action(root) | {"snr": float("nan"), "where": Path("x")})
    assert cli.main(["prepare", "near"]) == 0
    assert the_record(project)["result"] == {"utterances": 1, "snr": "NaN", "where": "x"}


def test_a_record_that_cannot_be_written_is_a_warning(project, monkeypatch):
    (project / "runs").write_text("a file where the folder should be")
    behave(monkeypatch, "prepare", wrote("data/near/mixtures"))
    with pytest.warns(UserWarning, match="run record .* could not be written"):
        assert cli.main(["prepare", "near"]) == 0


def test_only_the_first_process_of_torchrun_records(project, monkeypatch):
    behave(monkeypatch, "prepare", wrote("data/near/mixtures"))
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["prepare", "near"]) == 0
    assert not (project / "runs").exists()


def test_the_code_version_is_that_of_diffse_and_not_of_the_folder_it_is_used_in(tmp_path, monkeypatch):
    package = tmp_path / "env" / "diffse"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@y"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    monkeypatch.setattr(runs.diffse, "__file__", str(package / "__init__.py"))
    assert runs.code_version()["commit"] is None
    subprocess.run([*git, "add", "env"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "ours"], check=True)
    version = runs.code_version()
    assert len(version["commit"]) == 40
    assert version["dirty"] is False
    (package / "__init__.py").write_text("x = 1")
    assert runs.code_version()["dirty"] is True


# ------------------------------------------------------------------------------------------- references


def test_a_reference_changes_with_the_content(project):
    folder = project / "data"
    (folder / "inner").mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "inner" / "shard.flac").write_bytes(b"1234")
    first = steps.reference(project, Path("data"))
    assert first.startswith("data@sha256:")
    (folder / ".lock").write_text("77")  # no part of the artifact
    assert steps.reference(project, Path("data")) == first
    seen = {first}
    for name, text in (("manifest.json", "[]"), ("inner/shard.flac", "12345"), ("more.csv", "")):
        (folder / name).write_text(text)
        seen.add(steps.reference(project, Path("data")))
    (folder / "more.csv").rename(folder / "other.csv")
    seen.add(steps.reference(project, Path("data")))
    assert len(seen) == 5


def test_a_reference_is_written_for_the_runner(project, monkeypatch):
    behave(monkeypatch, "prepare", wrote("data/near/mixtures"))
    assert cli.main(["prepare", "near", "--write-reference", "out/reference"]) == 0
    wanted = (project / "out/reference").read_text()
    assert wanted == steps.reference(project, Path("data/near/mixtures"))
    behave(monkeypatch, "cache", wrote("data/near/cache"))
    assert cli.main(["cache", "near", "--needs", wanted]) == 0
    (project / "data/near/mixtures/manifest.json").write_text("[2]")
    assert cli.main(["cache", "near", "--needs", wanted]) == 2


def test_settings_of_a_compiled_pipeline_are_accepted_while_they_hold(project, monkeypatch):
    behave(monkeypatch, "prepare", wrote("data/near/mixtures"))
    read = json.dumps(steps.settings_read(steps.describe("prepare", ["near"]), cli_params(project)))
    assert cli.main(["prepare", "near", "--settings", read]) == 0
    assert cli.main(["prepare", "far", "--settings", read]) == 2


def cli_params(project: Path):
    from diffse import settings

    return settings.load(project / "params.yaml")
