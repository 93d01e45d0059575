"""Generating on pages that were taken ahead, where others want them (contract R4, R5, X10)."""

from __future__ import annotations

import json
from collections.abc import Sequence

import attrs
import inferlet
import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from inferlet import host

from pie.config import EngineConfig, Scheduling
from pie.engine import Engine
from pie.ids import EventCode
from pie.programs import NativeProgram
from pie.testing import outcome_of, run_native, simulated_engine
from pie.testing.determinism import run_simulated

from .players import STEP_SECONDS, Do, Log, Player, Stepwise, actions, begun, gpu_of

pytestmark = pytest.mark.usefixtures("both_devices")

AMPLE = 200
"""Pages that are enough for any example."""


@attrs.frozen
class Hog:
    """A neighbour that takes pages of the pool, all of them at most, and gives them back."""

    share: float
    seconds: float
    times: int
    older: bool

    async def run(self, arguments: list[str]) -> None:
        queue = await host.create_queue((await inferlet.get_model()).handle)
        for _ in range(self.times):
            pages = await host.allocate(queue, host.KV_PAGE, 1 + int(self.share * int(*arguments)))
            await inferlet.sleep(self.seconds * STEP_SECONDS)
            await host.deallocate(queue, host.KV_PAGE, pages)


hogs = st.builds(
    Hog,
    st.sampled_from([0.1, 0.5, 0.9]),
    st.sampled_from([0.0, 3.5, 40.0]),
    st.integers(1, 5),
    st.booleans(),
)
strands = st.lists(
    st.lists(actions.filter(lambda do: do.what != "fork"), min_size=1, max_size=4),
    min_size=1,
    max_size=3,
)


def _played(
    kind: type[inferlet.Context],
    programs: Sequence[Sequence[Do]],
    pages: int = AMPLE,
    neighbours: Sequence[Hog] = (),
) -> tuple[list[Log], int]:
    """What each strand of a guest sees, and how many pages all of them need at most."""

    async def main(_: list[str]) -> str:
        model = await inferlet.get_model()
        players = [Player([await begun(kind, model)], names=False) for _ in programs]
        each = zip(players, programs, strict=True)
        logs = await inferlet.gather(*(player.play(program) for player, program in each))
        return json.dumps([logs, sum(player.most for player in players)])

    async def run() -> str:
        config = EngineConfig(scheduling=Scheduling(host_pages=AMPLE))
        with trio.fail_after(100_000 * STEP_SECONDS):
            async with simulated_engine(gpu_of(pages=pages), config=config) as engine:
                return await _beside(engine, NativeProgram(main), neighbours, str(pages - 1))

    logs, most = json.loads(run_simulated(run, seed=1))
    return logs, most


async def _beside(
    engine: Engine, program: NativeProgram, neighbours: Sequence[Hog], most: str
) -> str:
    """What the program returns, everybody having come to an end."""
    launched = [
        await engine.launch(NativeProgram(hog.run), [most]) for hog in neighbours if hog.older
    ]
    launched.append(await engine.launch(program, seed=1))
    main = launched[-1]
    launched += [
        await engine.launch(NativeProgram(hog.run), [most]) for hog in neighbours if not hog.older
    ]
    outcomes = [await outcome_of(each) for each in launched]
    assert {outcome.event.code for outcome in outcomes} == {EventCode.COMPLETED}, outcomes
    (stats,) = (await engine.stats()).values()
    assert stats.pages_free == stats.pages
    return outcomes[launched.index(main)].text


MOVED = Do("read", 8, 0, "aaf", 0.0), Do("read", 8, 0, "a", 0.0), Do("generate", 35, 0, "a", 0.0)
"""Its pages move out for a neighbour that comes late; what it takes ahead then it could not have
beside them.
"""


@settings(max_examples=60, deadline=None)
@example([[*MOVED, Do("stream", 25, 1, "a", 0.3)]], [Hog(0.9, 0.0, 1, older=False)])
@given(programs=strands, neighbours=st.lists(hogs, max_size=3))
def test_strands_get_on_in_the_pages_that_single_steps_need(
    programs: list[list[Do]], neighbours: list[Hog]
) -> None:
    """Contract S3: with the same results, and neither they nor their neighbours starve."""
    logs, most = _played(Stepwise, programs)
    assert _played(inferlet.Context, programs, most, neighbours) == (logs, most)


@pytest.mark.long
@settings(max_examples=3_000, deadline=None)
@given(programs=strands, neighbours=st.lists(hogs, max_size=3))
def test_strands_get_on_in_the_pages_that_single_steps_need_at_length(
    programs: list[list[Do]], neighbours: list[Hog]
) -> None:
    logs, most = _played(Stepwise, programs)
    assert _played(inferlet.Context, programs, most, neighbours) == (logs, most)


async def _text_beside(asks_at: float, pages: int, ahead: type[inferlet.Context]) -> str:
    """What a strand generates while another asks for all the pages that a prompt leaves it.

    It asks after so many steps, and gives them back at once.
    """

    async def main(_: list[str]) -> str:
        model = await inferlet.get_model()
        drawing, asking = await begun(ahead, model), await begun(ahead, model)

        async def ask() -> None:
            await inferlet.sleep(asks_at * STEP_SECONDS)
            asking.fill_tokens(bytes(16 * pages - 6))
            await asking.flush()
            await asking.release()

        generation, _ = await inferlet.gather(
            drawing.generate(max_tokens=50, sampler=inferlet.Multinomial(2.0), ignore_eos=True),
            ask(),
        )
        return f"{generation.text} {await drawing.step(inferlet.Multinomial(2.0))}"

    async def neighbour(_: list[str]) -> None:
        await (await begun(Stepwise, await inferlet.get_model())).flush()

    async with simulated_engine(gpu_of(pages=17)) as engine, trio.open_nursery() as nursery:
        nursery.start_soon(run_native, engine, neighbour)
        await trio.sleep(STEP_SECONDS / 2)  # in its step, so that the next must wait
        outcome = await run_native(engine, main, seed=3)
    assert outcome.event.code is EventCode.COMPLETED, outcome.event
    return outcome.text


@pytest.mark.parametrize(
    ("asks_at", "pages"),
    [(0.0, 16), (0.25, 16), (1.25, 16), (11.25, 16), (12.25, 15), (21.25, 15), (31.25, 14)],
)
async def test_a_decoding_gives_way_to_another_strand(asks_at: float, pages: int) -> None:
    """Contract R4, S3: a component could not go on to give back what it asks itself for."""
    step_by_step = await _text_beside(0, 1, Stepwise)
    assert await _text_beside(asks_at, pages, inferlet.Context) == step_by_step


async def test_a_stream_that_was_left_gives_way_to_whatever_asks() -> None:
    """So its pages are not held, and others have the names that they would have had."""

    async def main(_: list[str]) -> str:
        model = await inferlet.get_model()
        left, other = await begun(inferlet.Context, model), await begun(inferlet.Context, model)
        stream = left.stream(sampler=inferlet.Greedy(), max_tokens=60, ignore_eos=True)
        pieces = [await anext(stream) for _ in range(20)]
        other.fill_tokens(bytes(20))
        await other.flush()
        seen = [left.pointers, other.pointers]
        pieces += [piece async for piece in stream]
        return json.dumps(["".join(pieces), *seen])

    async with simulated_engine(gpu_of()) as engine:
        text, *seen = json.loads((await run_native(engine, main)).text)
    assert (len(text), seen) == (60, [[0, 1], [2, 3]])


async def test_a_generation_that_has_ended_holds_no_page_more_than_it_needs() -> None:
    """By its length, a token or a text that ends it: also where the guest does nothing more."""

    async def main(args: list[str]) -> None:
        context = await begun(inferlet.Context, await inferlet.get_model())
        first = await context.generate(max_tokens=9, sampler=inferlet.Greedy(), ignore_eos=True)
        context.rewind(6)
        stop = {
            "tokens": inferlet.stop_tokens([first.tokens[-1]]),
            "text": inferlet.stop_text(first.text[-2:]),
        }.get(args[0])
        await context.generate(max_tokens=40, sampler=inferlet.Greedy(), stop=stop, ignore_eos=True)
        await inferlet.sleep(100 * STEP_SECONDS)

    for how, held in (("length", 3), ("tokens", 1), ("text", 1)):
        async with simulated_engine(gpu_of()) as engine:
            launched = await engine.launch(NativeProgram(main), [how])
            await trio.sleep(90 * STEP_SECONDS)
            (stats,) = (await engine.stats()).values()
            assert stats.pages - stats.pages_free == held, how
            await engine.terminate(launched.instance)
            await outcome_of(launched)
