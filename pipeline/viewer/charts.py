"""Charts as SVG that stand inside an HTML page: no script, no font, no address; colors are the page's own variables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

WIDTH: Final = 720
HEIGHT: Final = 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 34
_SERIES: Final = ("var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)", "var(--c6)", "var(--c7)")

Points = Sequence[tuple[float, float]]


def short(value: float) -> str:
    """Write a number in three digits: 950, 1.2k, 34M."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def draw_lines(series: Mapping[str, Points], *, x_label: str, y_label: str, y_top: float | None = None) -> str:
    """Draw lines over a common axis, with a legend.

    Args:
        series: name -> points, ascending in x.
        x_label: below the axis.
        y_label: above it.
        y_top: end of the y axis; None: the largest value.
    """
    points = [point for line in series.values() for point in line]
    if len(points) < 2:
        return ""
    right = max(x for x, _ in points) or 1.0
    top = y_top or nice_top(max(y for _, y in points))
    lines = []
    for number, line in enumerate(series.values()):
        path = " ".join(f"{_x(x / right):.1f},{_y(y / top):.1f}" for x, y in line)
        color = _SERIES[number % len(_SERIES)]
        lines.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{path}"/>')
    ticks = [(fraction, f"{short(right * fraction)}") for fraction in (0, 0.25, 0.5, 0.75, 1)]
    chart = _frame(ticks, top, x_label, y_label, "".join(lines))
    return f'<figure class="chart">{chart}{_legend(list(series)) if len(series) > 1 else ""}</figure>'


def draw_histogram(counts: Mapping[str, Sequence[int]], edges: Sequence[float], *, x_label: str, y_label: str) -> str:
    """Draw bars over logarithmic bins; the bars of several series stand on each other.

    Args:
        counts: name -> number per bin.
        edges: borders of the bins, one more than there are bins.
        x_label: below the axis.
        y_label: above it.
    """
    num_bins = len(edges) - 1
    totals = [sum(row[number] for row in counts.values()) for number in range(num_bins)]
    top = nice_top(max(totals, default=0))
    width = (WIDTH - _LEFT - _RIGHT) / num_bins
    bars = []
    for number in range(num_bins):
        base = 0.0
        for place, row in enumerate(counts.values()):
            if row[number]:
                upper = _y((base + row[number]) / top)
                height = _y(base / top) - upper
                title = f"<title>{row[number]:,} of {short(edges[number])} to {short(edges[number + 1])}</title>"
                bars.append(
                    f'<rect x="{_LEFT + number * width + 1:.1f}" y="{upper:.1f}" width="{max(1.0, width - 2):.1f}" '
                    f'height="{height:.1f}" rx="1.5" fill="{_SERIES[place % len(_SERIES)]}">{title}</rect>'
                )
                base += row[number]
    step = max(1, math.ceil(num_bins / 6))
    ticks = [(number / num_bins, short(edges[number])) for number in range(0, num_bins + 1, step)]
    chart = _frame(ticks, top, x_label, y_label, "".join(bars))
    return f'<figure class="chart">{chart}{_legend(list(counts)) if len(counts) > 1 else ""}</figure>'


def nice_top(largest: float) -> float:
    """Give the next number above that is easy to read: 1, 2 or 5 times a power of ten."""
    if largest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= largest * 0.999)


def _x(fraction: float) -> float:
    return _LEFT + fraction * (WIDTH - _LEFT - _RIGHT)


def _y(fraction: float) -> float:
    return HEIGHT - _BOTTOM - min(1.0, fraction) * (HEIGHT - _TOP - _BOTTOM)


def _frame(ticks: Sequence[tuple[float, str]], top: float, x_label: str, y_label: str, content: str) -> str:
    """Draw axes with their numbers around the content."""
    parts = []
    for fraction in (0.0, 0.5, 1.0):
        y = _y(fraction)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(top * fraction)}</text>'
        )
    for fraction, text in ticks:
        anchor = "start" if fraction == 0 else "end" if fraction == 1 else "middle"
        place = f'x="{_x(fraction):.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="{anchor}"'
        parts.append(f'<text class="tick" {place}>{escape(text)}</text>')
    labels = f"{escape(y_label)} over {escape(x_label)}"
    parts.append(f'<text class="tick" x="{WIDTH - _RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x_label)}</text>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{labels}">{"".join(parts)}{content}</svg>'
        f"<figcaption>{escape(y_label)}</figcaption>"
    )


def _legend(names: Sequence[str]) -> str:
    items = [
        f'<span><i style="background:{_SERIES[number % len(_SERIES)]}"></i>{escape(name)}</span>'
        for number, name in enumerate(names)
    ]
    return f'<div class="legend">{"".join(items)}</div>'
