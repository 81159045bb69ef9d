"""Settings of samplers: how an estimate is drawn from a trained system.

Each dataclass mirrors what `recipes.build_sampler` calls; the first field is the tag by which `params.yaml`
chooses. Defaults are the published values, where the sampler is a published one.
"""

from dataclasses import dataclass
from typing import Literal

Grid = Literal["uniform", "quadratic", "cosine"]


@dataclass(frozen=True)
class PredictorCorrector:
    """Steps of the reverse SDE with a corrector before each (SGMSE+, StoRM)."""

    name: Literal["pc"] = "pc"
    steps: int = 30
    predictor: Literal["reverse_diffusion", "euler_maruyama", "none"] = "reverse_diffusion"
    corrector: Literal["ald", "langevin", "none"] = "ald"
    corrector_steps: int = 1
    snr: float = 0.5  # r, step size of the corrector
    t_eps: float = 0.03
    grid: Grid = "uniform"
    fixed_dt: bool = False  # published StoRM behaviour: dt = 1/N on every step


@dataclass(frozen=True)
class ProbabilityFlowODE:
    """Probability-flow ODE with error control (Runge-Kutta 4(5))."""

    name: Literal["ode"] = "ode"
    rtol: float = 1e-5
    atol: float = 1e-5
    t_eps: float = 0.03
    denoise_last: bool = True  # one step without noise from t_eps to 0
    last_dt: float | None = None  # its length; None: t_eps


@dataclass(frozen=True)
class Multistep:
    """Exponential steps with a memory of the last estimate: few network calls, for any process."""

    name: Literal["multistep"] = "multistep"
    steps: int = 10
    order: Literal[1, 2] = 2
    eta: float = 0.0  # 0: probability-flow ODE, 1: reverse SDE
    t_start: float = 1.0
    t_eps: float = 0.03
    grid: Grid = "uniform"


@dataclass(frozen=True)
class BridgeODE:
    """Probability-flow ODE of the bridge (paper 000, eq. 20)."""

    name: Literal["bridge_ode"] = "bridge_ode"
    steps: int = 50
    t_eps: float = 1e-4
    evaluate_at: Literal["previous", "target"] = "previous"  # target: the published code's choice
    grid: Grid = "uniform"
    result: Literal["state", "estimate"] = "state"  # estimate: the network's last one (EDM2SE)


@dataclass(frozen=True)
class BridgeSDE:
    """Reverse SDE of the bridge."""

    name: Literal["bridge_sde"] = "bridge_sde"
    steps: int = 50
    t_eps: float = 1e-4
    evaluate_at: Literal["previous", "target"] = "previous"
    grid: Grid = "uniform"
    result: Literal["state", "estimate"] = "state"


@dataclass(frozen=True)
class Direct:
    """One call of a predictive network."""

    name: Literal["direct"] = "direct"


@dataclass(frozen=True)
class EM:
    """UDiffSE: posterior sampling with a clean-speech prior and an NMF noise model (paper 004)."""

    name: Literal["em"] = "em"
    steps: int = 30
    em_iterations: int = 5
    likelihood_weight: float = 1.5  # lambda
    samples: int = 4  # b, averaged; published: 2
    rank: int = 4  # of the noise model
    nmf_updates: int = 1
    likelihood_every: int = 2  # l
    likelihood_step: Literal["dt", "full"] = "dt"  # full: algorithm 2 as printed, without the step's length
    likelihood_count: Literal["down", "up"] = "down"  # i = N ... 1 of algorithm 2, or published 0 ... N - 1
    first_likelihood: int = 1  # EM iteration from which the likelihood counts; published: 2
    corrector_scale: float = 0.5  # epsilon = (scale sigma)^2; 0: no corrector
    grid: Literal["uniform", "linspace"] = "uniform"  # i/N, or published linspace(1, t_eps, N)
    t_eps: float = 0.03
    start: Literal["unit", "marginal"] = "unit"  # y + z, or published y + sigma(1) z
    last_noise: bool = False  # noise also in the last step
    normalise: bool = True  # by the spectrogram's largest magnitude


@dataclass(frozen=True)
class EMProximal:
    """UDiffSE's EM with an E-step of a few proximal steps (Zhu et al. 2023), in place of the published one."""

    name: Literal["em_proximal"] = "em_proximal"
    steps: int = 10
    em_iterations: int = 5
    samples: int = 1  # averaged
    rank: int = 4  # of the noise model
    nmf_updates: int = 1
    prior_weight: float = 3.0  # how far the prior's variance lies below that of the state's noise
    t_eps: float = 0.03
    normalise: bool = True  # by the spectrogram's largest magnitude


@dataclass(frozen=True)
class VEM:
    """Variational EM with an RVAE and an NMF noise model."""

    name: Literal["vem"] = "vem"
    iterations: int = 40
    rank: int = 8
    lr: float = 0.03
    gradient_steps: int = 5  # of Adam in each E-step; with fewer the noise model takes the speech


Sampler = (
    PredictorCorrector | ProbabilityFlowODE | Multistep | BridgeODE | BridgeSDE | Direct | EM | EMProximal | VEM
)
