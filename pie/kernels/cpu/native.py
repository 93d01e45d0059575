"""The native functions of attention, and which of them a number of queries takes."""

from __future__ import annotations

from . import weights
from .attention_emit import mix, score
from .jit import compiled
from .library import Native, load
from .lines import Bfloats, Bytes, Form, Lines
from .partials import finish, merge
from .weights import QUERIES

weigh, weigh_scaled, settle, hide, cap, clear, join, divide = load(
    "attention",
    {
        "weigh": weights.weigh,
        "weigh_scaled": weights.weigh_scaled,
        "settle": weights.settle,
        "hide": weights.hide,
        "cap": weights.cap,
        "clear": weights.clear,
        "merge": merge,
        "finish": finish,
    },
)


def _products(name: str, kind: type[Lines]) -> list[Native]:
    """The native functions for scores of 1 .. 4 queries, then those for the mixing of values."""
    counts = range(1, QUERIES + 1)
    emitters = {f"score_{name}{count}": score(count, kind) for count in counts}
    emitters |= {f"mix_{name}{count}": mix(count, kind) for count in counts}
    return load(f"attention_{name}", emitters)


_score1, _score2, _score3, _score4, _mix1, _mix2, _mix3, _mix4 = _products("bf16", Bfloats)
(
    _score1_int8,
    _score2_int8,
    _score3_int8,
    _score4_int8,
    _mix1_int8,
    _mix2_int8,
    _mix3_int8,
    _mix4_int8,
) = _products("int8", Bytes)

_BF16 = int(Form.BF16)


@compiled
def score_pages(
    form: int, count: int, addresses: int, pages: int, entries: int, scores: int, dim: int
) -> None:
    """Scores of a call's queries; see `attention_emit.score`."""
    if form == _BF16:
        if count == 4:
            _score4(addresses, pages, entries, scores, dim)
        elif count == 3:
            _score3(addresses, pages, entries, scores, dim)
        elif count == 2:
            _score2(addresses, pages, entries, scores, dim)
        else:
            _score1(addresses, pages, entries, scores, dim)
    else:
        if count == 4:
            _score4_int8(addresses, pages, entries, scores, dim)
        elif count == 3:
            _score3_int8(addresses, pages, entries, scores, dim)
        elif count == 2:
            _score2_int8(addresses, pages, entries, scores, dim)
        else:
            _score1_int8(addresses, pages, entries, scores, dim)


@compiled
def mix_pages(
    form: int, count: int, addresses: int, pages: int, entries: int, scores: int, dim: int
) -> None:
    """Add weighted values to a call's partials; see `attention_emit.mix`."""
    if form == _BF16:
        if count == 4:
            _mix4(addresses, pages, entries, scores, dim)
        elif count == 3:
            _mix3(addresses, pages, entries, scores, dim)
        elif count == 2:
            _mix2(addresses, pages, entries, scores, dim)
        else:
            _mix1(addresses, pages, entries, scores, dim)
    else:
        if count == 4:
            _mix4_int8(addresses, pages, entries, scores, dim)
        elif count == 3:
            _mix3_int8(addresses, pages, entries, scores, dim)
        elif count == 2:
            _mix2_int8(addresses, pages, entries, scores, dim)
        else:
            _mix1_int8(addresses, pages, entries, scores, dim)
