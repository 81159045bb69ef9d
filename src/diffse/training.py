"""The training loop: resumable at any point, the same for one process or several.

Sample k of the endless crop sequence (its utterance, crop, time and noise) depends on (seed, k) alone, and
everything else the loop needs is in `state.pt`. A run that was killed and started again therefore ends with
the weights of an uninterrupted one.
"""

import hashlib
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffse import checkpoint, pages, paths, posthoc, precision, recipes, settings
from diffse.compiling import compile_
from diffse.data import cache_reader
from diffse.data.batches import Prefetcher
from diffse.distributed import Processes
from diffse.ema import EMA, PowerEMA
from diffse.errors import DiffseError
from diffse.networks.recomputation import recompute
from diffse.runs import code_version
from diffse.settings_reader import to_plain
from diffse.storage import atomic_file, exclusive_lock, read_json, sha256_file
from diffse.training_inputs import (
    crop_source,
    draw_times_and_noise,
    learning_rate,
    leaves_weights_unused,
    resolved,
    sample_seed,
)
from diffse.training_log import TrainingLog
from diffse.validating import Validator

STATE = paths.STATE
# Settings that change how a run is watched but not what it learns.
_WATCHING = ("paper", "checkpoint_every", "threads", "recompute", "compile")


def run(params: settings.Params, system: str, root: Path) -> dict:
    """Train one system (`<recipe>.<corpus>`) and write models/<system>/.

    Continues a run of the same settings and data; a finished one is left alone. Raises DiffseError for bad
    settings, missing data, a second trainer on the same folder, and a loss that is not finite.
    """
    recipe, corpus = paths.split_system(system)
    if recipe not in params.train or recipe not in params.enhance:
        raise DiffseError(f"'{recipe}' has no entry under 'train' and 'enhance' in params.yaml")
    settings.check_recipe(recipe, params.train[recipe], params.enhance[recipe])
    pages.keep()
    folder = paths.model(root, system)
    with Processes(params.train[recipe].threads) as processes:
        if processes.rank > 0:
            return Trainer(params, recipe, corpus, root, processes).train()
        with exclusive_lock(folder.with_name(f".{system}"), "training"):
            return Trainer(params, recipe, corpus, root, processes).train()


@dataclass
class _State:
    """What changes from step to step."""

    network: nn.Module
    ema: EMA | PowerEMA
    optimizer: torch.optim.Optimizer
    step: int = 0
    best: float = -math.inf


class Loss(nn.Module):
    """The objective as a module, so that several processes see one forward pass per step."""

    def __init__(self, network: nn.Module, objective: recipes.Objective) -> None:
        super().__init__()
        self.network, self.objective = network, objective

    def forward(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor, pretrain: bool) -> Tensor:
        """Mean loss of the batch; `pretrain`: of StoRM's predictor alone."""
        loss = self.objective.pretrain_loss if pretrain else self.objective.loss
        return loss(x_0, y, t, z).mean()


class Trainer:
    """One training run: objects from settings, `train()` to the end, state on disk."""

    def __init__(self, params: settings.Params, recipe: str, corpus: str, root: Path, processes: Processes):
        self.processes, self.recipe, self.corpus = processes, recipe, corpus
        self.enhance_settings = params.enhance[recipe]
        self.folder = paths.model(root, f"{recipe}.{corpus}")
        cache_folder, mixtures = paths.cache(root, corpus), paths.mixtures(root, corpus)
        self.train_settings = train = resolved(params.train[recipe], root, corpus)
        self.stft = train.stft or params.cache
        self.source = crop_source(train, params.cache, cache_folder, mixtures)
        if train.batch % processes.world:
            raise DiffseError(
                f"train.{recipe}.batch is {train.batch}, which {processes.world} processes cannot share equally"
            )
        cache = cache_reader.read_description(cache_folder)
        if cache["rate"] != train.rate:
            raise DiffseError(
                f"{cache_folder}: {cache['rate']} Hz, but train.{recipe}.rate is {train.rate}; "
                f"prepare this corpus with that rate, or set train.{recipe}.rate: {cache['rate']}"
            )
        self.data_version = cache["mixtures_sha256"]
        self.fingerprint = _fingerprint(train, self.stft, self.data_version)
        self.state = self._initial_state()
        if train.frames % self.state.network.frame_multiple:
            raise DiffseError(
                f"train.{recipe}.frames is {train.frames}; this network needs a multiple of "
                f"{self.state.network.frame_multiple}"
            )
        objective = recipes.build_objective(train, self.stft, self.state.network)
        self.loss = processes.wrap(Loss(self.state.network, objective), leaves_weights_unused(train))
        self.log = TrainingLog(self.folder, train.steps, silent=processes.rank > 0)
        sampler = train.validation_sampler or self.enhance_settings.sampler
        self.validator = Validator(mixtures, train, self.stft, self.enhance_settings, sampler)

    def _initial_state(self) -> _State:
        torch.manual_seed(self.train_settings.seed)
        train = self.train_settings
        network = recipes.build_network(train, self.stft).to(self.processes.device)
        if train.recompute:
            recompute(network)
        if train.compile:
            compile_(network, fixed_size=True)
        trainable = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trainable, lr=train.lr, betas=train.betas, fused=True)
        if train.power_ema is None:
            return _State(network, EMA(network, train.ema_decay), optimizer)
        return _State(network, PowerEMA(network, train.power_ema.stds), optimizer)

    # ------------------------------------------------------------------------------------------ the loop

    def train(self) -> dict:
        """Run to the last step; returns a summary for the run record."""
        finished = self._finished()
        self._agree(finished)
        if finished:
            return self._summary(resumed_from=self.train_settings.steps)
        start = self._resume()
        steps = self.train_settings.steps
        world, rank = self.processes.world, self.processes.rank
        with (
            Prefetcher(self.source, self.train_settings.batch, start, steps, rank=rank, world=world) as batches,
            self.log.running(start),
        ):
            for batch in batches:
                self._step(batch)
                self._after_step()
        self.processes.barrier()
        return self._summary(resumed_from=start)

    def _step(self, batch: dict[str, Any]) -> None:
        """One optimiser step on one batch."""
        train, state = self.train_settings, self.state
        rate = learning_rate(train, state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        device = self.processes.device
        torch.manual_seed(sample_seed(train.seed, -1 - int(batch["k"][0])))  # dropout, the same after a restart
        x_0, y = (batch[signal].to(device).contiguous() for signal in ("clean", "noisy"))
        t, z = draw_times_and_noise(train, batch["k"], x_0.shape[1:])
        pretrain = train.predictor is not None and state.step < train.predictor.pretrain_steps
        with precision.autocast(self.processes.device, train.precision):
            loss = self.loss(x_0, y, t.to(device), z.to(device), pretrain)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        limit = train.gradient_clip or math.inf
        norm = float(nn.utils.clip_grad_norm_(state.network.parameters(), limit))
        value = self.processes.mean(loss.detach())
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise DiffseError(
                f"train {self.recipe}.{self.corpus}: loss {value}, gradient norm {norm} at step "
                f"{state.step + 1}, batch {', '.join(batch['ids'])}; the last saved state is kept: "
                "check these files or lower lr"
            )
        state.optimizer.step()
        if hasattr(state.network, "normalise_weights_"):  # paper 001, section 2.2
            state.network.normalise_weights_()
        state.step += 1
        self._average()
        self.log.step(state.step, value, norm, rate)

    def _average(self) -> None:
        """Take the new weights into the averages."""
        train, state = self.train_settings, self.state
        if train.power_ema is None:
            state.ema.update(state.network)
        else:
            state.ema.update(state.network, state.step * train.batch, train.batch)

    def _averaged(self) -> nn.Module:
        """A copy of the network with the weights that are to be used."""
        train = self.train_settings
        network = recipes.build_network(train, self.stft).to(self.processes.device)
        if train.power_ema is None:
            self.state.ema.copy_to(network)
        elif train.power_ema.use == 0:
            network.load_state_dict(self.state.network.state_dict())
        else:
            self.state.ema.copy_to(network, train.power_ema.use)
        return network

    def _after_step(self) -> None:
        train, step = self.train_settings, self.state.step
        last = step == train.steps
        if (
            train.power_ema
            and self.processes.rank == 0
            and (step % train.power_ema.snapshot_every == 0 or last)
        ):
            posthoc.save_snapshot(self.folder / posthoc.FOLDER, self.state.ema, step * train.batch)
        if step % train.validate_every == 0 or last:
            self._validate()
        if step % train.checkpoint_every == 0 or last:
            self._save(last)

    def _validate(self) -> None:
        if self.processes.rank > 0 or not self.validator.rows:
            return
        network = self._averaged()
        scores = self.validator.score(network, self.processes.device)
        self.log.validation(self.state.step, scores)
        if scores[self.train_settings.monitor] > self.state.best:
            self.state.best = scores[self.train_settings.monitor]
            measured = {name: value for name, value in scores.items() if math.isfinite(value)}
            checkpoint.save(self.folder / "best", network, self._describe(measured))

    # ------------------------------------------------------------------------------------ state on disk

    def _save(self, last: bool) -> None:
        """Write what a later start needs; after the last step the checkpoints, and the state goes."""
        if self.processes.rank > 0:
            return
        self.log.flush()
        if not last:
            _write_state(self.folder / STATE, self._state_dict())
            return
        network = self._averaged()
        scores = self.log.last_validation()
        if self.state.best == -math.inf:  # nothing to choose by: the last weights are the best known
            checkpoint.save(self.folder / "best", network, self._describe(scores))
        checkpoint.save(self.folder / "last", network, self._describe(scores))
        if self.train_settings.power_ema:  # without any average, the other end of the sweep over lengths
            checkpoint.save(self.folder / "raw", self.state.network, self._describe({}))
        (self.folder / STATE).unlink(missing_ok=True)

    def _state_dict(self) -> dict:
        state = self.state
        return {
            "fingerprint": self.fingerprint,
            "step": state.step,
            "best": state.best,
            "network": state.network.state_dict(),
            "ema": state.ema.state_dict(),
            "optimizer": state.optimizer.state_dict(),
        }

    def _resume(self) -> int:
        """Load the saved state when it belongs to these settings and data; otherwise start from step 0."""
        path = self.folder / STATE
        saved = _read_state(path) if path.exists() else None
        fits = saved is not None and saved["fingerprint"] == self.fingerprint
        self._agree(saved["step"] if fits else -1)
        if not fits:
            if self.processes.rank == 0:
                set_aside(self.folder)
                self.log.truncate(0)
            self.processes.barrier()
            return 0
        state = self.state
        state.network.load_state_dict(saved["network"])
        state.ema.load_state_dict(saved["ema"])
        state.optimizer.load_state_dict(saved["optimizer"])
        state.step, state.best = saved["step"], saved["best"]
        if self.processes.rank == 0:
            self.log.truncate(state.step)
        self.processes.barrier()
        return state.step

    def _agree(self, seen: int) -> None:
        """Refuse to train where processes see different states: their weights would drift apart unnoticed."""
        if not self.processes.agree(seen):
            raise DiffseError(
                f"{self.folder}: the processes of this training see different states of it; let all nodes use "
                "one folder on a volume that they share, and start it again"
            )

    def _finished(self) -> bool:
        path = self.folder / "last" / checkpoint.DESCRIPTION
        if (self.folder / STATE).exists() or not path.exists():
            return False
        return read_json(path).get("fingerprint") == self.fingerprint

    def _describe(self, scores: dict[str, float]) -> dict:
        return {
            "recipe": self.recipe,
            "trained_on": self.corpus,
            "step": self.state.step,
            "parameters": recipes.count_parameters(self.state.network),
            "train": to_plain(self.train_settings),
            "stft": to_plain(self.stft),
            "enhance": to_plain(self.enhance_settings),
            "data_version": self.data_version,
            "code_version": code_version(),
            "fingerprint": self.fingerprint,
            "ema": _ema_profile(self.train_settings, self.state.step),
            "validation": scores,
        }

    def _summary(self, resumed_from: int) -> dict:
        if self.processes.rank > 0:
            return {"rank": self.processes.rank}
        best = checkpoint.describe(self.folder / "best")
        return {
            "steps": self.train_settings.steps,
            "resumed_from": resumed_from,
            "processes": self.processes.world,
            "parameters": best["parameters"],
            "best_step": best["step"],
            "best_validation": best["validation"],
            "checkpoint_sha256": sha256_file(self.folder / "best" / checkpoint.WEIGHTS),
        }


# ---------------------------------------------------------------------------------------- pure functions


def _ema_profile(train: settings.Train, step: int) -> dict:
    """What the checkpoint says about its average."""
    if train.power_ema is None:
        return {"decay": train.ema_decay, "updates": step}
    return {"std": train.power_ema.use, "seen": step * train.batch}


def _fingerprint(train: settings.Train, stft: settings.Stft, data_version: str) -> str:
    """Identity of what is learnt: a saved state continues only under the same one."""
    plain = {key: value for key, value in to_plain(train).items() if key not in _WATCHING}
    text = json.dumps([plain, to_plain(stft), data_version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _write_state(path: Path, state: dict) -> None:
    with atomic_file(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # torch's own for a failed write, without its reason
            reason = str(error).splitlines()[0]
            raise DiffseError(
                f"{path}: cannot be written ({reason}); is the disk full? The state saved before is kept"
            ) from None


def _read_state(path: Path) -> dict:
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        state["fingerprint"]
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise DiffseError(
            f"{path}: not a readable training state ({type(error).__name__}); "
            "delete it to start again from step 0"
        ) from None
    return state


def set_aside(folder: Path) -> None:
    """Move what another run left in the folder to `<folder>.superseded`, so that nothing is lost.

    What was stopped before it saved anything goes instead: it must not push out a trained system.
    """
    if not any((folder / name).exists() for name in (STATE, "best", "last")):
        shutil.rmtree(folder, ignore_errors=True)
        return
    target = folder.with_name(f"{folder.name}.superseded")
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)
