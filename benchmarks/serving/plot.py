"""The speeds as bars in an SVG picture: each contender as a share of the best peer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from .summary import _LESS, best_peer, median

_WIDTH, _LEFT, _BAR, _GAP, _TOP = 720, 210, 15, 16, 56
_COLOURS = ("#1668b8", "#7fb2e5", "#808080", "#b0b0b0", "#d2691e", "#2e8b57")


def bars(
    title: str, values: Mapping[str, Mapping[str, Sequence[float]]], titles: Mapping[str, str]
) -> str:
    """A group for each case; a bar of length 1 is the best peer, and longer is better.

    A case that no peer has is left out.
    """
    names = list(dict.fromkeys(name for row in values.values() for name in row))
    groups = {case: shares(case, row) for case, row in values.items()}
    groups = {case: group for case, group in groups.items() if group}
    longest = max([1.0, *(length for group in groups.values() for length in group.values())])
    unit = (_WIDTH - _LEFT - 70) / longest
    parts, y = list[str](), float(_TOP)
    for case, group in groups.items():
        parts.append(_text(_LEFT - 8, y + _BAR, titles.get(case, case), anchor="end"))
        for name, length in group.items():
            colour = _COLOURS[names.index(name) % len(_COLOURS)]
            wide = length * unit
            parts.append(
                f'<rect x="{_LEFT}" y="{y:.1f}" width="{wide:.1f}" height="{_BAR - 2}" '
                f'fill="{colour}"/>'
            )
            label = f"{length:.2f} {name}"
            parts.append(_text(_LEFT + wide + 5, y + _BAR - 4, label, size=10))
            y += _BAR
        y += _GAP
    line = _LEFT + unit
    height = y + 10
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH + 90}" height="{height:.0f}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{_WIDTH + 90}" height="{height:.0f}" fill="white"/>',
            _text(12, 22, title, size=14),
            _text(line, _TOP - 10, "best peer", anchor="middle", size=10),
            f'<path d="M{line:.1f} {_TOP - 6}V{y:.1f}" stroke="#999" stroke-dasharray="4 3"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def shares(case: str, row: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Contender -> how many times as good as the best peer it is; empty without a peer."""
    less = case in _LESS
    best = best_peer(row, less=less)
    if best is None:
        return {}
    mark = median(row[best])
    return {
        name: (mark / median(each) if less else median(each) / mark) for name, each in row.items()
    }


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="#333">{escape(text)}</text>'
    )
