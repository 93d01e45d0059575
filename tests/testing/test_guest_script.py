"""Native inferlets against the host interfaces, a call at a time."""

from __future__ import annotations

from pie.ids import EventCode
from pie.testing import (
    ArithmeticRunner,
    GuestScript,
    HostCalls,
    Outcome,
    RunInferlet,
    SimulatedGpu,
    run_native,
    simulated_engine,
)

PAGE = 0


async def _run(script: GuestScript, *arguments: str) -> Outcome:
    async with simulated_engine(SimulatedGpu(ArithmeticRunner(page_size=4))) as engine:
        return await run_native(engine, script, arguments)


async def test_a_script_decodes_what_can_be_computed_by_hand() -> None:
    """After "ab", k; then 296 + 108 * 3 = 620, w; then 620 + 120 * 4 = 1100, i."""

    async def decode(host: HostCalls) -> str:
        queue = await host.queue()
        pages = await host.call("allocate-resources", queue, PAGE, 2)
        text = bytes(await host.tokens(await host.submit(queue, b"ab", pages[:1])))
        text += bytes(await host.tokens(await host.submit(queue, text, pages[:1], start=2)))
        text += bytes(await host.tokens(await host.submit(queue, text[1:], pages[:1], start=3)))
        more = await host.submit(queue, b"abcde", pages, start=0, outputs=[0, 1])
        return text.decode() + " " + bytes(await host.tokens(more)).decode()

    assert (await _run(GuestScript(decode))).text == "kwi uk"


async def test_results_are_waited_for_by_their_kind() -> None:
    async def barrier(host: HostCalls) -> str:
        queue = await host.queue()
        pages = await host.call("allocate-resources", queue, PAGE, 1)
        await host.submit(queue, b"ab", pages, outputs=[])
        result = await host.call("queue.synchronize", queue)
        done = await host.answer("synchronization-result", result)
        host.drop(result)
        return f"{host.arguments} {done}"

    assert (await _run(GuestScript(barrier), "x", "y")).text == "('x', 'y') True"


async def test_a_trap_ends_the_instance_as_a_components_would() -> None:
    async def free_what_is_not_there(host: HostCalls) -> None:
        await host.call("deallocate-resources", await host.queue(), PAGE, [7])

    outcome = await _run(GuestScript(free_what_is_not_there))
    assert outcome.event.code is EventCode.EXCEPTION
    assert "pointer 7" in outcome.event.text


async def test_an_unknown_function_is_named(run_inferlet: RunInferlet) -> None:
    async def wrong(host: HostCalls) -> None:
        await host.call("alocate")

    outcome = await run_inferlet(GuestScript(wrong))
    assert "the host interfaces have no function 'alocate'" in outcome.event.text
