"""What makes room for an upload: enough, no more than that, and nothing that is in use by name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie.errors import UsageError
from pie.server.library_room import BLOCK, make_room
from pie.server.library_tables import Entry, Held
from pie.server.program_names import Version


def named(base: str, version: str, key: str) -> Entry:
    return Entry(owner="ann", base=base, version=Version(version), hash=key, size=1)


@st.composite
def shelves(draw: st.DrawFn) -> tuple[list[Held], list[Entry]]:
    sizes = draw(st.lists(st.integers(1, 5 * BLOCK), min_size=1, max_size=8))
    held = [Held(f"key{number}", size) for number, size in enumerate(sizes)]
    names = st.tuples(st.sampled_from("abc"), st.sampled_from("123"))
    which = st.dictionaries(names, st.sampled_from(held), max_size=6)
    return held, [named(base, version, each.hash) for (base, version), each in draw(which).items()]


def cost(held: Sequence[Held], entries: Sequence[Entry]) -> int:
    blocks = sum(-(-each.size // BLOCK) for each in held)
    return (blocks + len(entries)) * BLOCK


@given(shelves(), st.integers(0, 30 * BLOCK))
def test_room_is_made_as_promised(shelf: tuple[list[Held], list[Entry]], limit: int) -> None:
    held, entries = shelf
    new = held[-1].hash
    newest = {
        max((e for e in entries if e.base == base), key=lambda e: e.version).hash
        for base in {entry.base for entry in entries}
    }
    needed = newest | {new}

    def after(lost: Sequence[str]) -> int:
        return cost(
            [each for each in held if each.hash not in lost],
            [entry for entry in entries if entry.hash not in lost],
        )

    least = after([each.hash for each in held if each.hash not in needed])
    if least > limit:
        with pytest.raises(UsageError, match=f"are {least} bytes, at most {limit} are kept"):
            make_room(held, entries, new, limit)
        return
    lost = make_room(held, entries, new, limit)

    assert after(lost) <= limit
    assert not lost or after(lost[:-1]) > limit, "one too many"
    assert not needed & set(lost)
    order = [each.hash for each in held]
    has_name = {entry.hash for entry in entries}
    assert lost == sorted(lost, key=lambda key: (key in has_name, order.index(key)))


def test_pre_releases_are_older_than_their_release() -> None:
    held = [Held("release", 1), Held("rc", 1), Held("new", 1)]
    entries = [named("a", "1.0", "release"), named("a", "1.0-rc.1", "rc")]

    assert make_room(held, entries, "new", 3 * BLOCK) == ["rc"]
    with pytest.raises(UsageError, match=f"are {3 * BLOCK} bytes"):
        make_room(held, entries, "new", 2 * BLOCK)
