"""A line plot as SVG, without a library: logarithmic x, y in percent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 130, 34, 44
COLOURS = ("#000000", "#1668b8", "#d2691e", "#2e8b57", "#a0308c", "#b8860b", "#808080")

Series = Mapping[str, Sequence[float]]


def line_plot(title: str, x_title: str, x: Sequence[float], series: Series) -> str:
    """Each series has a value (a share: 1 is 100 %) for each x; the first is drawn dashed."""
    top = max(1.0, max(max(values) for values in series.values()))

    def across(value: float) -> float:
        low, high = math.log(x[0]), math.log(x[-1])
        return LEFT + (math.log(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def down(value: float) -> float:
        return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 20, title, size=14),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_title, anchor="middle"),
    ]
    for tenth in range(0, int(top * 10) + 1, 2):
        y = down(tenth / 10)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{tenth * 10} %", anchor="end"))
    low = HEIGHT - BOTTOM + 16
    parts += [_text(across(value), low, f"{value:g}", anchor="middle") for value in x]
    first = next(iter(series))
    lowest = 0.0
    for name in sorted(series, key=lambda name: down(series[name][-1])):
        lowest = max(lowest + 15, down(series[name][-1]) + 4)
        colour = COLOURS[list(series).index(name)]
        parts.append(_text(WIDTH - RIGHT + 8, lowest, name, colour=colour))
    for number, name in sorted(enumerate(series), reverse=True):  # the first on top
        spots = zip(x, series[name], strict=True)
        points = " ".join(f"{across(a):.1f},{down(b):.1f}" for a, b in spots)
        style = 'stroke-width="2" stroke-dasharray="6 4"' if name == first else 'stroke-width="2.5"'
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{COLOURS[number]}" {style}/>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = "#333"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{colour}">{escape(text)}</text>'
    )
