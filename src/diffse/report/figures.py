"""Figures as geometry: what the template draws as inline SVG.

Drawn this way, text stays text, colours follow the page's light or dark scheme, and the same numbers give the
same bytes on any machine. matplotlib chooses the ticks and colours the spectrograms.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

WIDTH, HEIGHT = 300, 226  # of the view box, in CSS pixels
LEFT, RIGHT, TOP, BOTTOM = 56, 292, 8, 182  # of the plotting area
COLOURS = 6  # .c0 to .c5 in page.css
MARKERS = (  # around (0, 0): circle, square, triangle, diamond
    "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z",
    "M-2.7 -2.7h5.4v5.4h-5.4z",
    "M0 -3.6L3.4 2.6H-3.4z",
    "M0 -3.8L3.8 0L0 3.8L-3.8 0z",
)
MAX_POINTS = 400  # of a curve
SMOOTHING = 0.04  # window of the moving average, as a share of the curve


@dataclass(frozen=True)
class Tick:
    """A mark on an axis at `at` pixels."""

    at: float
    text: str


@dataclass(frozen=True)
class Point:
    """A marker with the text that shows when the pointer rests on it."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Series:
    """A line (SVG path, may be empty) and markers, in one colour and shape."""

    name: str
    index: int  # of the system
    line: str = ""
    faint: str = ""
    bars: str = ""  # intervals
    points: tuple[Point, ...] = ()

    @property
    def colour(self) -> str:
        return f"c{self.index % COLOURS}"

    @property
    def marker(self) -> str:
        return MARKERS[self.index % len(MARKERS)]


@dataclass(frozen=True)
class Chart:
    """A figure. `description` is its text alternative."""

    title: str
    description: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[Series, ...] = ()
    guide: str = ""  # dashed reference line (SVG path)
    image: str = ""  # data URI that fills the plotting area
    legend: bool = field(default=False)


@dataclass(frozen=True)
class Scale:
    """Maps data in [low, high] to pixels in [start, end]; log10 if `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self, text: Callable[[float], str] | None = None) -> tuple[Tick, ...]:
        """About five round values inside the range."""
        from matplotlib import ticker

        if self.log and self.high / self.low >= 10:
            subs = (1.0,) if self.high / self.low >= 1000 else (1.0, 2.0, 5.0)
            locator: ticker.Locator = ticker.LogLocator(subs=subs, numticks=12)
        else:
            locator = ticker.MaxNLocator(nbins=5)
        values = locator.tick_values(self.low, self.high)
        slack = 1e-9 * (self.high - self.low)
        inside = [float(value) for value in values if self.low - slack <= value <= self.high + slack]
        return tuple(Tick(self(value), (text or _plain)(value)) for value in inside)


def _plain(value: float) -> str:
    """3000000 -> 3M, 20000 -> 20k, 0.5 -> 0.5."""
    value = 0.0 if abs(value) < 1e-12 else value
    if abs(value) >= 1e6:
        text = f"{value / 1e6:g}M"
    elif abs(value) >= 1e4:
        text = f"{value / 1e3:g}k"
    else:
        text = f"{value:g}"
    return text.replace("-", "−")


def _range(values: Sequence[float], margin: float = 0.05) -> tuple[float, float]:
    """Low and high with a margin; never empty."""
    low, high = float(min(values)), float(max(values))
    room = (high - low) * margin or max(abs(low) * margin, 0.5)
    return low - room, high + room


def _path(x: Scale, y: Scale, xs: Sequence[float], ys: Sequence[float]) -> str:
    return "M" + "L".join(f"{x(a):g} {y(b):g}" for a, b in zip(xs, ys, strict=True))


# ---------------------------------------------------------------------------------------------- curves


def _binned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most MAX_POINTS means over neighbouring steps."""
    groups = np.array_split(np.arange(len(steps)), min(len(steps), MAX_POINTS))
    return tuple(np.array([column[group].mean() for group in groups]) for column in (steps, values))


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Centred moving average; the window is cut at the ends."""
    half = max(1, round(len(values) * SMOOTHING / 2))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - half, 0)
    last = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def loss_chart(name: str, index: int, steps: np.ndarray, losses: np.ndarray) -> Chart | None:
    """Training loss by step [n], smoothed, over its binned values; log scale if all are positive.

    None when no loss is finite.
    """
    good = np.isfinite(steps) & np.isfinite(losses)
    if not good.any():
        return None
    steps, smooth = steps[good], _smoothed(losses[good])
    log = bool((losses[good] > 0).all())
    bin_steps, raw = _binned(steps, losses[good])
    _, line = _binned(steps, smooth)
    low, high = float(raw.min()), float(raw.max())
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    x = Scale(*_range([steps[0], steps[-1]], 0.02), LEFT, RIGHT)
    y = Scale(low, high, BOTTOM, TOP, log)
    skipped = int(len(good) - good.sum())
    return Chart(
        title=f"Loss of {name}",
        description=(
            f"Smoothed training loss of {name} from {smooth[0]:.4g} at step {steps[0]:.0f} to "
            f"{smooth[-1]:.4g} at step {steps[-1]:.0f}."
            + (f" {skipped} values that are not finite are left out." if skipped else "")
        ),
        x_label="step",
        y_label="loss (log scale)" if log else "loss",
        x_ticks=x.ticks(),
        y_ticks=y.ticks(),
        series=(Series(name, index, _path(x, y, bin_steps, line), _path(x, y, bin_steps, raw)),),
    )


Validation = tuple[int, np.ndarray, np.ndarray]  # index of the system, steps [n], values [n]


def validation_chart(label: str, unit: str, curves: dict[str, Validation]) -> Chart | None:
    """One validation metric by step; `curves` by system. None if all are empty."""
    finite = {}
    for name, (index, steps, values) in curves.items():
        good = np.isfinite(steps) & np.isfinite(values)
        if good.any():
            finite[name] = (index, steps[good], values[good])
    if not finite:
        return None
    x = Scale(*_range(np.concatenate([steps for _, steps, _ in finite.values()])), LEFT, RIGHT)
    y = Scale(*_range(np.concatenate([values for _, _, values in finite.values()])), BOTTOM, TOP)
    series, said = [], []
    for name, (index, steps, values) in finite.items():
        pairs = list(zip(steps, values, strict=True))
        points = tuple(Point(x(a), y(b), f"{name}, step {a:.0f}: {b:.4g} {unit}".strip()) for a, b in pairs)
        series.append(Series(name, index, _path(x, y, steps, values), points=points))
        said.append(f"{name} ends at {values[-1]:.4g} {unit}".strip())
    return Chart(
        title=f"{label} on the validation files",
        description=f"{label} on the validation files by training step: {', '.join(said)}.",
        x_label="step",
        y_label=f"{label} ({unit})" if unit else label,
        x_ticks=x.ticks(),
        y_ticks=y.ticks(),
        series=tuple(series),
        legend=True,
    )


# ------------------------------------------------------------------------------------------- intervals


@dataclass(frozen=True)
class Measured:
    """A mean at `x`, its interval (None: none), and the text that shows when the pointer rests on it."""

    x: float
    mean: float
    low: float | None
    high: float | None
    title: str

    @property
    def span(self) -> tuple[float, float]:
        """Interval, or the mean twice."""
        return (self.mean, self.mean) if self.low is None or self.high is None else (self.low, self.high)


_CAP = 3  # pixels to either side of the end of an interval
_TICK_ROOM = 24  # pixels between the texts of an axis


@dataclass(frozen=True)
class Curve:
    """Points in order of x, in the colour and shape of a system's index."""

    name: str
    index: int
    points: list[Measured]


def interval_chart(
    title: str,
    description: str,
    labels: tuple[str, str],
    curves: list[Curve],
    level: float | None = None,
    log: bool = False,
) -> Chart | None:
    """Means with intervals over x (log10 scale if `log`), with a dashed line at `level`; None without a mean.

    labels: of the x and y axes.
    """
    points = [point for curve in curves for point in curve.points]
    if not points:
        return None
    places = sorted({point.x for point in points})
    x = Scale(*(_log_range(places) if log else _range(places)), LEFT, RIGHT, log)
    heights = [end for point in points for end in point.span] + ([] if level is None else [level])
    y = Scale(*_range(heights), BOTTOM, TOP)
    return Chart(
        title=title,
        description=description,
        x_label=labels[0],
        y_label=labels[1],
        x_ticks=_ticks_at(x, places),
        y_ticks=y.ticks(),
        series=tuple(_interval_series(curve, x, y) for curve in curves if curve.points),
        guide="" if level is None else f"M{LEFT} {y(level):g}H{RIGHT}",
        legend=True,
    )


def _interval_series(curve: Curve, x: Scale, y: Scale) -> Series:
    points = curve.points
    bars = "".join(_bar(x(point.x), *map(y, point.span)) for point in points if point.low is not None)
    marks = tuple(Point(x(point.x), y(point.mean), point.title) for point in points)
    line = _path(x, y, [point.x for point in points], [point.mean for point in points])
    return Series(curve.name, curve.index, line, bars=bars, points=marks)


def _log_range(values: Sequence[float]) -> tuple[float, float]:
    room = max(1.15, (max(values) / min(values)) ** 0.05)
    return min(values) / room, max(values) * room


def _bar(x: float, low: float, high: float) -> str:
    caps = "".join(f"M{x - _CAP:g} {end:g}H{x + _CAP:g}" for end in (low, high))
    return f"M{x:g} {low:g}V{high:g}{caps}"


def _ticks_at(scale: Scale, values: Sequence[float]) -> tuple[Tick, ...]:
    """Marks at the values themselves, as far as their texts have room."""
    ticks: list[Tick] = []
    for value in values:
        if not ticks or scale(value) - ticks[-1].at >= _TICK_ROOM:
            ticks.append(Tick(scale(value), _plain(value)))
    return tuple(ticks)


# --------------------------------------------------------------------------------------------- scatter


def scatter_chart(
    label: str, unit: str, clouds: dict[str, tuple[int, list[str], np.ndarray, np.ndarray]]
) -> Chart | None:
    """Score of each file, enhanced against input; clouds: system -> (index, ids, input [n], enhanced [n])."""
    clouds = {name: cloud for name, cloud in clouds.items() if cloud[1]}
    if not clouds:
        return None
    bounds = _range(np.concatenate([np.concatenate([x, y]) for _, _, x, y in clouds.values()]))
    x, y = Scale(*bounds, LEFT, RIGHT), Scale(*bounds, BOTTOM, TOP)
    series, said = [], []
    for name, (index, ids, before, after) in clouds.items():
        rows = list(zip(ids, before, after, strict=True))
        points = tuple(
            Point(x(a), y(b), f"{name}, {item}: {a:.3g} → {b:.3g} {unit}".strip()) for item, a, b in rows
        )
        series.append(Series(name, index, points=points))
        said.append(f"{name} is above its input on {int((after > before).sum())} of {len(ids)} files")
    suffix = f" ({unit})" if unit else ""
    return Chart(
        title=f"{label} of each file",
        description=f"{label} of each file, enhanced against input: {', '.join(said)}.",
        x_label=f"{label} of the input{suffix}",
        y_label=f"enhanced{suffix}",
        x_ticks=x.ticks(),
        y_ticks=y.ticks(),
        series=tuple(series),
        guide=_path(x, y, bounds, bounds),
        legend=True,
    )


# ----------------------------------------------------------------------------------------- spectrogram


def spectrogram_chart(name: str, image: str, seconds: float, rate: int) -> Chart:
    """Axes around a spectrogram image (data URI) of `seconds` from 0 to half the `rate` (Hz)."""
    x = Scale(0.0, max(seconds, 1e-6), LEFT, RIGHT)
    y = Scale(0.0, rate / 2000, BOTTOM, TOP)
    return Chart(
        title=name,
        description=f"Spectrogram of {name}: {seconds:.2f} s, 0 to {rate / 2000:g} kHz.",
        x_label="time (s)",
        y_label="frequency (kHz)",
        x_ticks=x.ticks(),
        y_ticks=y.ticks(),
        image=image,
    )
