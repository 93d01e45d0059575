"""Rare places are told to who listens, and cost nothing on the usual way."""

from __future__ import annotations

from pathlib import Path

import inferlet
import pytest
import trio

from pie.messages import Launched
from pie.probes import listening, sometimes
from pie.programs import NativeProgram
from pie.testing import outcome_of, simulated_engine
from pie.testing.rare import rare_places


def test_who_listens_is_told_and_nobody_else() -> None:
    outer: list[str] = []
    inner: list[str] = []
    sometimes("before")
    with listening(outer.append):
        sometimes("outside")
        with listening(inner.append):
            sometimes("inside")
        sometimes("outside again")
    sometimes("after")

    assert outer == ["outside", "outside again"]
    assert inner == ["inside"]


async def test_plain_decoding_meets_no_rare_place() -> None:
    """Nothing is paid where every token passes."""
    seen: list[str] = []

    async def main(args: list[str]) -> str:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill(args[0])
        return (await context.generate(max_tokens=40, ignore_eos=True)).text

    async def read(launched: Launched) -> None:
        assert len((await outcome_of(launched)).text) == 40

    with listening(seen.append):
        async with simulated_engine() as engine, trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(read, await engine.launch(NativeProgram(main), [str(number)]))

    assert seen == []


def test_all_rare_places_of_the_engine_are_known() -> None:
    places = rare_places()

    assert places["a copy takes over its page"].startswith("actors/requests:")
    assert len(places) > 20


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ('sometimes("a")\nsometimes("a")', "a:2: 'a' is also at a:1"),
        ("sometimes(name)", "a:1: .* one literal name"),
        ('sometimes("a", "b")', "a:1: .* one literal name"),
        ('sometimes(f"a {b}")', "a:1: .* one literal name"),
    ],
)
def test_a_place_that_cannot_be_told_apart_is_refused(
    tmp_path: Path, source: str, reason: str
) -> None:
    (tmp_path / "a.py").write_text(source)

    with pytest.raises(ValueError, match=reason):
        rare_places(tmp_path)
