"""Charts as Vega-Lite specifications; colours belong to systems, whatever is shown beside them."""

from typing import Any

import numpy as np
import pandas

from diffse.dashboard.look import SYSTEMS

POINTS = 400  # of a line; more cannot be seen
_PADDING = {"left": 4, "top": 8, "right": 14, "bottom": 4}  # so that marks and labels at the edges are whole
_AXIS = {"titlePadding": 8, "labelPadding": 6}
_SMOOTH = 0.02  # of the points are averaged


def curves(
    tables: dict[str, pandas.DataFrame],
    column: str,
    names: list[str],
    *,
    smooth: bool = False,
    log: bool = False,
    points: bool = False,
    height: int = 300,
) -> dict[str, Any]:
    """Lines of `column` over the step, one per system; `look.legend(names)` explains the colours."""
    rows = []
    for system, table in tables.items():
        x, y = thinned(table["step"].to_numpy(float), table[column].to_numpy(float), smooth)
        rows += [{"step": a, column: b, "system": system} for a, b in zip(x, y, strict=True)]
    y_axis = {
        "field": column,
        "type": "quantitative",
        "scale": {"zero": False, "type": "log" if log else "linear"},
        "axis": _AXIS,
    }
    y_axis["title"] = f"{column} (log scale)" if log else column
    return {
        "data": {"values": rows},
        "height": height,
        "padding": _PADDING,
        "mark": {"type": "line", "point": points, "tooltip": True, "strokeWidth": 1.8},
        "encoding": {
            "x": {"field": "step", "type": "quantitative", "title": "step", "axis": _AXIS},
            "y": y_axis,
            "color": colour(names),
        },
    }


def colour(names: list[str]) -> dict[str, Any]:
    """One colour per name, in their order."""
    palette = [SYSTEMS[place % len(SYSTEMS)] for place in range(len(names))]
    scale = {"domain": names, "range": palette}
    return {"field": "system", "type": "nominal", "scale": scale, "legend": None}


def thinned(x: np.ndarray, y: np.ndarray, smooth: bool) -> tuple[list[float], list[float]]:
    """At most POINTS finite points of a curve, averaged over neighbours if asked for."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    width = max(1, round(_SMOOTH * len(y))) if smooth else 1
    if width > 1:
        weights = np.convolve(np.ones(len(y)), np.ones(width), "same")
        y = np.convolve(y, np.ones(width), "same") / weights
    stride = max(1, -(-len(x) // POINTS))
    keep = np.unique(np.append(np.arange(0, len(x), stride), len(x) - 1)) if len(x) else slice(0)
    return x[keep].tolist(), y[keep].tolist()


def positive(tables: dict[str, pandas.DataFrame], column: str) -> bool:
    """Whether a logarithm can be drawn of all values."""
    return all((table[column].dropna() > 0).all() for table in tables.values())


def intervals(rows: list[dict[str, Any]], names: list[str], title: str) -> dict[str, Any]:
    """Means as points with intervals as bars; rows: {"system", "mean", "low", "high"}."""
    y = {"field": "system", "type": "nominal", "title": None, "sort": names, "axis": {"labelLimit": 180}}
    x = {"field": "low", "type": "quantitative", "title": title, "scale": {"zero": False}, "axis": _AXIS}
    return {
        "data": {"values": rows},
        "height": max(120, 34 * len(rows) + 60),
        "padding": _PADDING,
        "encoding": {"y": y, "color": colour(names)},
        "layer": [
            {"mark": {"type": "rule", "strokeWidth": 3}, "encoding": {"x": x, "x2": {"field": "high"}}},
            {
                "mark": {"type": "point", "filled": True, "size": 90, "tooltip": True},
                "encoding": {"x": {"field": "mean", "type": "quantitative"}},
            },
        ],
    }


def densities(frames: dict[str, pandas.DataFrame], column: str, title: str) -> dict[str, Any]:
    """Shares of files over a number, one line per set of files."""
    values = {name: frame[column].dropna().to_numpy(float) for name, frame in frames.items()}
    everything = np.concatenate(list(values.values()))
    edges = np.linspace(everything.min(), everything.max() + 1e-9, 21)
    rows = []
    for name, own in values.items():
        shares = np.histogram(own, edges)[0] / max(len(own), 1)
        middles = (edges[1:] + edges[:-1]) / 2
        rows += [{title: a, "share": b, "system": name} for a, b in zip(middles, shares, strict=True)]
    return {
        "data": {"values": rows},
        "height": 200,
        "padding": _PADDING,
        "mark": {"type": "area", "line": True, "opacity": 0.25, "interpolate": "step", "tooltip": True},
        "encoding": {
            "x": {"field": title, "type": "quantitative", "scale": {"zero": False}, "axis": _AXIS},
            "y": {"field": "share", "type": "quantitative", "stack": None, "axis": _AXIS | {"format": "%"}},
            "color": colour(list(frames)),
        },
    }
