"""The command line: each verb's own options, and the verbs that are no steps."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import small_project
from test_cli import behave, the_record, wrote

from diffse import __version__, cli, steps


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    folder = small_project.create(tmp_path)
    monkeypatch.chdir(folder)
    return folder


def test_the_project_is_the_folder_of_the_settings(project, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    behave(monkeypatch, "prepare", wrote("data/near/mixtures"))
    assert cli.main(["prepare", "near", "--params", str(project / "params.yaml")]) == 0
    assert (project / "data/near/mixtures").is_dir()
    assert the_record(project)["state"] == "ok"


def test_enhancing_files_passes_the_options_on(project, monkeypatch, capsys):
    from diffse import enhancer

    calls = []

    def enhance_paths(*paths, **options):
        calls.append((paths, options))
        return {"enhanced": 2, "kept": 1, "output": "out", "real_time_factor": 0.5}

    monkeypatch.setattr(enhancer, "enhance_paths", enhance_paths)
    command = ["enhance", "in", "out", "--checkpoint", "best"]
    assert cli.main([*command, "--steps", "4", "--seed", "7", "--batch", "2", "--no-resample"]) == 0
    options = {"steps": 4, "seed": 7, "batch": 2, "device": None, "resample": False, "overwrite": False}
    options |= {"predictor": None, "ema": None, "precision": None, "shard": "1/1"}
    assert calls.pop() == ((Path("in"), Path("out"), Path("best")), options)
    assert capsys.readouterr().out == "2 enhanced, 1 already there: out (0.50 s per second of audio)\n"
    assert the_record(project)["names"] == ["files"]
    assert cli.main([*command, "--predictor", "other", "--ema", "0.1"]) == 0
    assert (calls[0][1]["predictor"], calls[0][1]["ema"]) == (Path("other"), 0.1)


def test_enhancing_files_leaves_no_record_outside_a_project(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["enhance", "in.wav", "out.wav", "--checkpoint", "best"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_external_system_may_be_called_like_a_file(project, monkeypatch):
    from diffse import external

    params = json.loads(json.dumps(small_project.PARAMS)) | small_project.MORE
    small_project.write_params(project, params)
    (project / "theirs").mkdir()
    calls = []

    def run(params, name, corpus, root):
        calls.append((name, corpus))
        return wrote("enhanced/theirs/near")(root)

    monkeypatch.setattr(external, "run", run)
    assert cli.main(["enhance", "theirs", "near"]) == 0
    assert calls == [("theirs", "near")]
    assert list(the_record(project)["settings"]) == ["external.theirs"]


@pytest.mark.parametrize("name", ["unprocessed", "sweeps", "swaps"])
def test_an_external_system_cannot_take_a_folder_of_results(project, capsys, name):
    params = json.loads(json.dumps(small_project.PARAMS))
    params["external"] = {name: {"folder": f"sources/external/{name}"}}
    small_project.write_params(project, params)
    assert cli.main(["enhance", name, "near"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_sweep_and_a_swap_record_settings_and_data(project, monkeypatch):
    small_project.write_params(project, small_project.PARAMS | small_project.MORE)
    mixtures = project / "data/near/mixtures"
    mixtures.mkdir(parents=True)
    (mixtures / "manifest.parquet").write_bytes(b"pairs")
    for verb, name in (("sweep", "fine"), ("swap", "other")):
        behave(monkeypatch, verb, wrote(f"results/{verb}s/{name}"))
        assert cli.main([verb, name]) == 0
        record = small_project.records(project)[-1]
        assert list(record["settings"]) == [f"{verb}s.{name}", "enhance", "evaluate"]
        assert list(record["data"]) == ["near"]


def test_a_system_of_a_sweep_must_be_there(project, capsys):
    params = small_project.PARAMS | {"sweeps": {"fine": {"system": "brigde.near", "corpus": "near"}}}
    small_project.write_params(project, params)
    assert cli.main(["sweep", "fine"]) == 2
    assert "sweeps.fine.system 'brigde.near' is no system that is trained" in capsys.readouterr().err


IMPORTED = {
    "kind": "sgmse", "recipe": "r", "folder": "m", "parameters": 1234, "weights": "average", "step": 5,
    "settings": "ouve, score_matching, ncsnpp; pc, 30 steps; 16000 Hz", "warnings": ["no hyper-parameters"],
}  # fmt: skip


def test_importing_prints_one_line_and_its_warnings(project, monkeypatch, capsys):
    from diffse import importers

    calls = []
    monkeypatch.setattr(importers, "run", lambda *options: calls.append(options) or IMPORTED)
    assert cli.main(["import", "a.ckpt", "m", "--kind", "sgmse", "--name", "r"]) == 0
    assert calls == [(Path("a.ckpt"), Path("m"), "sgmse", "r")]
    said = capsys.readouterr()
    assert said.out == "sgmse as m: 1,234 parameters; ouve, score_matching, ncsnpp; pc, 30 steps; 16000 Hz\n"
    assert said.err == "diffse: a.ckpt: no hyper-parameters\n"
    assert the_record(project)["names"] == ["r"]


def test_importing_needs_no_project(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["import", "none.ckpt", "m"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_help_names_every_kind_of_import(capsys):
    from diffse import importers

    with pytest.raises(SystemExit):
        cli.main(["import", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(kind in text for kind in importers.KINDS)


def test_the_page_of_the_report_is_copied(project, monkeypatch):
    from diffse.report import build

    def report(params, root):
        (root / "report").mkdir()
        (root / "report/index.html").write_text("<p>")
        (root / "report/summary.csv").write_text("system\n")
        return {}

    monkeypatch.setattr(build, "run", report)
    assert cli.main(["report", "--page", "out/page.html"]) == 0
    assert (project / "out/page.html").read_text() == "<p>"


def test_version_and_module_form():
    for command in ([sys.executable, "-m", "diffse"], [str(Path(sys.executable).parent / "diffse")]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"diffse {__version__}\n"


def test_help_lists_every_verb(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for verb in (*steps.VERBS, "import"):
        assert f"\n    {verb} " in text
    assert list(cli.VERBS) == list(steps.VERBS)
