"""The speeds as bars in an SVG picture: each contender as a share of the best peer."""

from __future__ import annotations

from xml.sax.saxutils import escape

from .agents.jobs import TITLES
from .cases import CASES
from .contenders import Row
from .summary import best_peer, found, less_is_better, ratio, title_of

_WIDTH, _LEFT, _BAR, _GAP, _TOP = 720, 210, 15, 16, 56
_COLOURS = ("#1668b8", "#7fb2e5", "#808080", "#b0b0b0", "#d2691e", "#2e8b57")


def bars(report: Row) -> str:
    """A group for each case and job; a bar of length 1 is the best peer, and longer is better.

    One that no peer has is left out.
    """
    title = f"Times the best peer, {report['machine']['processor']}"
    groups = {part: shares(report, part) for part in (*CASES, *TITLES)}
    groups = {part: group for part, group in groups.items() if group}
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    longest = max([1.0, *(length for group in groups.values() for length in group.values())])
    unit = (_WIDTH - _LEFT - 70) / longest
    parts, y = list[str](), float(_TOP)
    for part, group in groups.items():
        parts.append(_text(_LEFT - 8, y + _BAR, title_of(part), anchor="end"))
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


def shares(report: Row, part: str) -> dict[str, float]:
    """Contender -> how many times as good as the best peer it is; empty without a peer."""
    values, less = found(report, part), less_is_better(part)
    best = best_peer(values, less=less)
    if best is None:
        return {}
    return {name: ratio(each, values[best], less=less)["ratio"] for name, each in values.items()}


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="#333">{escape(text)}</text>'
    )
