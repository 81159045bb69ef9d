"""Training: the same weights whatever happens, and a tiny network that learns."""

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from tiny import make_project, write_params

from diffse import checkpoint, paths, settings, training
from diffse.errors import DiffseError
from diffse.storage import exclusive_lock


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny project with data, prepared once."""
    root = tmp_path_factory.mktemp("project")
    make_project(root)
    return root


@pytest.fixture
def project(made, tmp_path):
    """A fresh project folder on the same data."""
    for name in ("data", "sources"):
        (tmp_path / name).symlink_to(made / name)
    return tmp_path


def weights(root, system="bridge.toy", which="last"):
    return checkpoint.load_weights(paths.model(root, system) / which)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


class Killed(Exception):
    pass


@pytest.mark.parametrize("system", ["bridge.toy", "score.toy"])
def test_a_killed_run_continues_to_the_same_weights_and_curves(project, system, monkeypatch):
    params = write_params(project)
    training.run(params, system, project)
    whole = weights(project, system)
    files = {
        name: (paths.model(project, system) / name).read_bytes() for name in ("history.csv", "validation.csv")
    }
    shutil.rmtree(project / "models")

    after = training.Trainer._after_step

    def die_at_seven(self):
        if self.state.step == 7:
            raise Killed
        after(self)

    monkeypatch.setattr(training.Trainer, "_after_step", die_at_seven)
    with pytest.raises(Killed):
        training.run(params, system, project)
    monkeypatch.undo()
    summary = training.run(params, system, project)
    assert summary["resumed_from"] == 4
    assert_same(weights(project, system), whole)
    for name, content in files.items():
        assert (paths.model(project, system) / name).read_bytes() == content
    steps = [int(line.split("\t")[0]) for line in _loss_tsv(project, system).splitlines()[1:]]
    assert steps == list(range(1, 13))


def _loss_tsv(project, system):
    path = paths.model(project, system) / "dvclive" / "plots" / "metrics" / "loss.tsv"
    text = path.read_text()
    assert text.splitlines()[0].split("\t")[0] == "step"
    return text


def test_kill_9_loses_nothing_and_the_lock_goes_with_the_process(project):
    params = write_params(project, train__bridge__steps=400, train__bridge__checkpoint_every=5)
    command = [sys.executable, "-m", "diffse", "train", "bridge.toy", "--params", str(project / "params.yaml")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    state = paths.model(project, "bridge.toy") / training.STATE
    deadline = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 2 and "already running" in second.stderr
    assert str(process.pid) in second.stderr
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    saved = torch.load(state, weights_only=True)
    assert saved["step"] % 5 == 0 and saved["step"] > 0
    short = dataclasses.replace(params.train["bridge"], steps=400)
    assert short == params.train["bridge"]
    trainer_step = saved["step"]
    with training.Processes(1) as processes:
        trainer = training.Trainer(params, "bridge", "toy", project, processes)
        assert trainer._resume() == trainer_step


def test_other_settings_start_again_and_keep_the_old_run(project):
    params = write_params(project)
    training.run(params, "bridge.toy", project)
    old = weights(project)
    changed = write_params(project, train__bridge__seed=1)
    assert training.run(changed, "bridge.toy", project)["resumed_from"] == 0
    assert any(not torch.equal(old[name], value) for name, value in weights(project).items())
    assert_same(weights(project, "bridge.toy.superseded"), old)


def test_a_run_that_saved_nothing_does_not_push_out_the_old_one(project, monkeypatch):
    params = write_params(project)
    training.run(params, "bridge.toy", project)
    old = weights(project)
    changed = write_params(project, train__bridge__seed=1)

    def die(self, batch):
        raise Killed

    monkeypatch.setattr(training.Trainer, "_step", die)
    for _ in range(2):
        with pytest.raises(Killed):
            training.run(changed, "bridge.toy", project)
        assert_same(weights(project, "bridge.toy.superseded"), old)


@pytest.mark.parametrize("missing", ["pesq", "si_sdr"])
def test_a_validation_score_that_cannot_be_computed_is_left_out(project, monkeypatch, missing):
    params = write_params(project)
    scores = {"si_sdr": 1.0, "pesq": 2.0, "estoi": 0.5, missing: float("nan")}
    monkeypatch.setattr(training.Validator, "score", lambda *_: dict(scores))
    summary = training.run(params, "bridge.toy", project)
    assert summary["best_validation"] == {key: value for key, value in scores.items() if key != missing}
    assert summary["best_step"] == (12 if missing == "si_sdr" else 6)  # nothing to choose by: the last


def test_a_finished_run_is_left_alone(project):
    params = write_params(project)
    training.run(params, "bridge.toy", project)
    before = {p: p.stat().st_mtime_ns for p in paths.model(project, "bridge.toy").rglob("*") if p.is_file()}
    assert training.run(params, "bridge.toy", project)["resumed_from"] == 12
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_two_processes_learn_what_one_learns(project):
    write_params(project, recipes=["bridge"])
    command = [sys.executable, "-m", "diffse", "train", "bridge.toy", "--params", str(project / "params.yaml")]
    subprocess.run(command, check=True, capture_output=True)
    one = weights(project)
    shutil.rmtree(project / "models")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1"]
    result = subprocess.run(
        [*torchrun, "--master_port=29571", *command[1:]],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    two = weights(project)
    assert one.keys() == two.keys()
    for name in one:  # the same batches; only the order of the sums differs
        torch.testing.assert_close(one[name], two[name], rtol=2e-3, atol=2e-4, msg=name)


def test_times_and_noise_belong_to_the_sample_and_not_to_the_batch():
    train = settings.Train(times=settings.Times(at_end=0.5))
    t, z = training.draw_times_and_noise(train, list(range(64)), torch.Size([1, 4, 4]))
    t_late, z_late = training.draw_times_and_noise(train, [63, 5], torch.Size([1, 4, 4]))
    assert torch.equal(t_late, t[[63, 5]]) and torch.equal(z_late, z[[63, 5]])
    assert 16 <= int((t == 1).sum()) <= 48
    assert float(t.min()) >= 0.03 and float(t.max()) <= 1
    assert float(z.abs().square().mean()) == pytest.approx(1.0, abs=0.1)


def test_learning_rate_warms_up_and_falls():
    train = settings.Train(lr=1.0, steps=100, warmup_steps=10, decay_from=0.5)
    rates = [training.learning_rate(train, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9:51] == [1.0] * 42
    assert rates[75] == pytest.approx(0.5) and 0 < rates[99] <= 0.02


def test_a_loss_that_is_not_finite_names_the_batch(project, monkeypatch):
    params = write_params(project)
    after = training.Trainer._after_step

    def poison(self):
        after(self)
        if self.state.step == 5:
            next(self.state.network.parameters()).data.fill_(float("nan"))

    monkeypatch.setattr(training.Trainer, "_after_step", poison)
    with pytest.raises(DiffseError, match=r"step 6, batch .*train\d.*last saved state is kept"):
        training.run(params, "bridge.toy", project)
    assert torch.load(paths.model(project, "bridge.toy") / training.STATE, weights_only=True)["step"] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train__bridge__rate": 8000}, r"toy/cache: 16000 Hz, but train\.bridge\.rate is 8000"),
        ({"train__bridge__frames": 33}, r"train\.bridge\.frames is 33; this network needs a multiple of 2"),
    ],
)
def test_data_and_crops_that_do_not_fit_the_system_are_refused(project, change, message):
    params = write_params(project, **change)
    with pytest.raises(DiffseError, match=message):
        training.run(params, "bridge.toy", project)
    assert not paths.model(project, "bridge.toy").exists()


def test_one_folder_has_one_trainer(project):
    params = write_params(project)
    with (
        exclusive_lock(project / "models" / ".bridge.toy", "training"),
        pytest.raises(DiffseError, match="training is already running here"),
    ):
        training.run(params, "bridge.toy", project)


@pytest.mark.parametrize("content", ["not a state", [1.0], {"step": 3}])
def test_a_damaged_state_is_one_line(project, content):
    params = write_params(project)
    state = paths.model(project, "bridge.toy") / training.STATE
    state.parent.mkdir(parents=True)
    if isinstance(content, str):
        state.write_text(content)
    else:
        torch.save(content, state)
    before = state.read_bytes()
    with pytest.raises(DiffseError, match="not a readable training state"):
        training.run(params, "bridge.toy", project)
    assert state.read_bytes() == before


def test_a_state_that_cannot_be_written_is_one_line_and_the_run_continues(project, monkeypatch):
    """A limit on the size of a file fails a write as a full disk does."""
    params = write_params(project)
    state, write, limits = paths.model(project, "bridge.toy") / training.STATE, training._write_state, []

    def limited(path, content):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            if content["step"] == 8:
                resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
            limits.append(content["step"])
            write(path, content)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(training, "_write_state", limited)
    with pytest.raises(DiffseError, match=r"state.pt: cannot be written .*is the disk full") as caught:
        training.run(params, "bridge.toy", project)
    assert limits == [4, 8] and "\n" not in str(caught.value)
    assert [item.name for item in state.parent.glob("*state*")] == [state.name]
    monkeypatch.undo()
    assert training.run(params, "bridge.toy", project)["resumed_from"] == 4


def test_best_is_the_best_validation(project):
    params = write_params(project)
    training.run(params, "bridge.toy", project)
    best = checkpoint.describe(paths.model(project, "bridge.toy") / "best")
    rows = (paths.model(project, "bridge.toy") / "validation.csv").read_text().splitlines()[1:]
    scores = {int(row.split(",")[0]): float(row.split(",")[1]) for row in rows}
    assert best["step"] == max(scores, key=scores.get)
    assert sorted(scores) == [6, 12]
    json.dumps(best)


def test_a_tiny_bridge_learns(project):
    """From the noisy signal's own error to well below it, in a few hundred steps on three utterances."""
    params = write_params(
        project, train__bridge__steps=250, train__bridge__times={"at_end": 1.0},
        train__bridge__validate_every=250, train__bridge__checkpoint_every=250, train__bridge__lr=4.0e-3,
        recipes=["bridge"],
    )  # fmt: skip
    training.run(params, "bridge.toy", project)
    rows = (paths.model(project, "bridge.toy") / "history.csv").read_text().splitlines()[1:]
    losses = [float(row.split(",")[1]) for row in rows]
    assert sum(losses[-25:]) < 0.35 * sum(losses[:25])
