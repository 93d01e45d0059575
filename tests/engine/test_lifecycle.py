"""How instances end, and that each says so exactly once (contract G3, R10, X0)."""

from __future__ import annotations

import inferlet
import pytest
import trio
from inferlet.native import HOST

from pie.actors.broker import Broker
from pie.actors.planner import BatchPlanner
from pie.config import EngineConfig
from pie.engine import Engine
from pie.errors import Closed, UsageError
from pie.guest.host import HostInterface
from pie.guest.instance import Instance
from pie.guest.interfaces import ALL
from pie.ids import EventCode, InstanceId
from pie.messages import Event, Launched
from pie.programs import NativeProgram
from pie.testing import (
    HashModel,
    LinearTiming,
    SimulatedGpu,
    SlowBatch,
    outcome_of,
    run_native,
    simulated_engine,
)


async def _waits_for_ever(_: list[str]) -> None:
    await trio.sleep_forever()


async def test_a_returned_text_is_the_completed_event() -> None:
    async def main(args: list[str]) -> str:
        return " ".join(args)

    async with simulated_engine() as engine:
        outcome = await run_native(engine, main, ["a", "b"])

    assert (outcome.event.code, outcome.event.text) == (EventCode.COMPLETED, "a b")


async def test_an_error_result_is_an_exception_with_exactly_its_text() -> None:
    async def main(_: list[str]) -> str:
        raise inferlet.Failure("no such city")

    async with simulated_engine() as engine:
        outcome = await run_native(engine, main)

    assert (outcome.event.code, outcome.event.text) == (EventCode.EXCEPTION, "no such city")


@pytest.mark.makes_a_bug
async def test_our_own_bug_ends_that_guest_with_a_reference(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Event 4; the traceback is logged under the same reference, and the engine goes on."""
    broken = HostInterface("inferlet:core/runtime")
    broken.functions.update(next(i for i in ALL if i.name == broken.name).functions)
    del broken.functions["get-version"]

    @broken.function("get-version")
    def get_version(instance: Instance) -> str:
        return str(1 // 0)

    async def main(_: list[str]) -> None:
        await HOST.get().call("inferlet:core/runtime", "get-version")

    async with simulated_engine() as engine:
        program = NativeProgram(main, [broken, *(i for i in ALL if i.name != broken.name)])
        outcome = await outcome_of(await engine.launch(program))
        assert (await run_native(engine, _hello)).text == "hello"

    assert outcome.event.code is EventCode.SERVER_ERROR
    reference = outcome.event.text.split("reference ")[1].split(":")[0]
    (record,) = caplog.records
    assert reference in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


async def _hello(_: list[str]) -> str:
    return "hello"


async def test_a_request_for_memory_that_can_never_fit_is_event_5() -> None:
    """Contract R5: with both numbers; the engine goes on."""

    async def main(_: list[str]) -> None:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill("x" * 100)
        await context.flush()

    async with simulated_engine(SimulatedGpu(HashModel(pages=4))) as engine:
        outcome = await run_native(engine, main)
        assert (await run_native(engine, _hello)).text == "hello"

    assert outcome.event.code is EventCode.OUT_OF_RESOURCES
    assert "holds 0 KV pages and asks for 7 more, the pool has 4" in outcome.event.text


async def test_a_terminated_instance_is_gone_when_terminate_returns() -> None:
    async with simulated_engine() as engine:
        launched = await engine.launch(NativeProgram(_waits_for_ever))
        await engine.terminate(launched.instance, "enough")
        assert await engine.instances() == []
        with pytest.raises(UsageError, match="is not running"):
            await engine.terminate(launched.instance)

    event = (await outcome_of(launched)).event
    assert (event.code, event.text) == (EventCode.ABORTED, "enough")


async def test_leaving_the_engine_ends_its_instances_with_an_event() -> None:
    async with simulated_engine() as engine:
        launched = await engine.launch(NativeProgram(_waits_for_ever))

    event = (await outcome_of(launched)).event
    assert (event.code, event.text) == (EventCode.ABORTED, "the engine is shutting down")


async def test_cancelling_the_engine_ends_its_instances_with_an_event() -> None:
    with trio.move_on_after(1):
        async with simulated_engine() as engine:
            launched = await engine.launch(NativeProgram(_waits_for_ever))
            await trio.sleep_forever()

    assert (await outcome_of(launched)).event.code is EventCode.ABORTED


async def test_a_guest_of_several_strands_hears_why_it_was_ended_too() -> None:
    """Trio gives its end as a group."""

    async def main(args: list[str]) -> None:
        await inferlet.gather(*(_waits_for_ever(args) for _ in range(3)))

    async with simulated_engine() as engine:
        launched = await engine.launch(NativeProgram(main))
        await trio.sleep(1)

    event = (await outcome_of(launched)).event
    assert (event.code, event.text) == (EventCode.ABORTED, "the engine is shutting down")


async def test_an_ended_engine_answers_that_it_has_ended() -> None:
    async with simulated_engine() as engine:
        pass

    with pytest.raises(Closed):
        await engine.launch(NativeProgram(_hello))


async def test_an_engine_that_is_ending_answers_so_at_once() -> None:
    """It may take as long as a step does to end; nobody who comes meanwhile waits for that."""
    gpu = SimulatedGpu()
    gpu.fail_next(SlowBatch(1e6))
    asked: list[float] = []

    async def ask_late(engine: Engine, closing: trio.Event) -> None:
        await closing.wait()
        await trio.sleep(1)
        began = trio.current_time()
        for question in (
            engine.launch(NativeProgram(_hello)),
            engine.terminate(InstanceId(0)),
            engine.instances(),
            engine.pages_of(),
            engine.stats(),
        ):
            with pytest.raises(Closed):
                await question
            asked.append(trio.current_time() - began)

    closing = trio.Event()
    async with trio.open_nursery() as nursery:
        async with simulated_engine(gpu) as engine:
            await engine.launch(NativeProgram(_generate))
            await trio.sleep(1)
            nursery.start_soon(ask_late, engine, closing)
            closing.set()
        assert asked == [0.0] * 5


async def test_a_launch_that_the_end_of_the_engine_overtakes_is_answered() -> None:
    """Its instance ends with the others, or there is none."""
    answers: list[Launched | Closed] = []

    async def launch(engine: Engine) -> None:
        try:
            answers.append(await engine.launch(NativeProgram(_waits_for_ever)))
        except Closed as closed:
            answers.append(closed)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with simulated_engine() as engine:
                for _ in range(4):
                    nursery.start_soon(launch, engine)
                await trio.lowlevel.checkpoint()
                scope.cancel()

    assert len(answers) == 4
    for answer in answers:
        if isinstance(answer, Launched):
            assert (await outcome_of(answer)).event.code is EventCode.ABORTED


async def test_many_instances_are_terminated_at_once() -> None:
    """Each with its reason, and all they held is taken back."""
    gpu = SimulatedGpu(timing=LinearTiming(0.3, 0.0))
    async with simulated_engine(gpu) as engine:
        launched = [await engine.launch(NativeProgram(_generate_on)) for _ in range(200)]
        await trio.sleep(1)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for one in launched:
                nursery.start_soon(engine.terminate, one.instance, "draining")
        assert trio.current_time() == began
        await trio.sleep(1)
        stats = (await engine.stats())["simulated"]
        assert (stats.instances, stats.queued, stats.pages_free) == (0, 0, stats.pages)

    events = {(await outcome_of(one)).event for one in launched}
    assert events == {Event(EventCode.ABORTED, "draining")}


async def _generate_on(_: list[str]) -> None:
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill("x")
    await context.generate(max_tokens=1000, ignore_eos=True)


async def _generate(_: list[str]) -> str:
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill("x")
    return (await context.generate(max_tokens=3)).text


@pytest.mark.parametrize("place", ["model", "scheduler", "broker"])
async def test_our_own_bug_in_an_actor_stops_the_engine(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State shared by all is no longer trusted; nobody waits for ever."""

    def broken(*arguments: object) -> None:
        raise LookupError("an actor fell over")

    where = {"model": (HashModel, "run"), "scheduler": (BatchPlanner, "next_step")}
    monkeypatch.setattr(*where.get(place, (Broker, "_handle")), broken)

    async def use_an_engine() -> None:
        async with simulated_engine() as engine:
            await outcome_of(await engine.launch(NativeProgram(_generate)))
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught, trio.fail_after(100):
        await use_an_engine()

    assert caught.group_contains(LookupError, match="an actor fell over")


async def test_more_instances_than_allowed_are_refused() -> None:
    async with simulated_engine(config=EngineConfig(max_instances=2)) as engine:
        for _ in range(2):
            await engine.launch(NativeProgram(_waits_for_ever))
        with pytest.raises(UsageError, match="2 instances are running, the limit"):
            await engine.launch(NativeProgram(_hello))


async def test_launches_have_reproducible_identities_and_seeds() -> None:
    """Contract S3: derived from the engine's seed and the launch number of that user."""

    async def draw(_: list[str]) -> str:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill("x")
        return (await context.generate(max_tokens=20, ignore_eos=True)).text

    async def texts(seed: int, users: list[str]) -> list[tuple[str, str]]:
        async with simulated_engine(config=EngineConfig(seed=seed)) as engine:
            found = []
            for user in users:
                launched = await engine.launch(NativeProgram(draw), user=user)
                found.append((launched.uuid, (await outcome_of(launched)).text))
        return found

    first = await texts(1, ["ann", "ann", "bob"])

    assert len(set(first)) == 3
    assert await texts(1, ["bob", "ann", "ann"]) == [first[2], first[0], first[1]]
    assert await texts(2, ["ann"]) != first[:1]


async def test_a_slow_client_slows_only_its_own_instance() -> None:
    """Contract X4: nothing is lost."""

    async def chatty(_: list[str]) -> str:
        for number in range(1000):
            await inferlet.send(str(number))
        return "done"

    async with simulated_engine() as engine:
        slow = await engine.launch(NativeProgram(chatty))
        fast = await outcome_of(await engine.launch(NativeProgram(chatty)))
        assert [d.instance for d in await engine.instances()] == [slow.instance]
        late = await outcome_of(slow)

    assert late.messages == fast.messages == tuple(map(str, range(1000)))


async def test_messages_reach_an_instance_in_order_and_end_with_the_input() -> None:
    async def echo(_: list[str]) -> str:
        got = [await inferlet.receive() for _ in range(3)]
        await inferlet.send(" ".join(got))
        return await inferlet.receive()

    async with simulated_engine() as engine:
        launched = await engine.launch(NativeProgram(echo))
        for text in ("a", "b", "c"):
            await engine.send(launched.instance, text)
        engine.end_input(launched.instance)
        outcome = await outcome_of(launched)

    assert outcome.messages == ("a b c",)
    assert (outcome.event.code, outcome.event.text) == (
        EventCode.EXCEPTION,
        "no client will send",
    )


async def test_a_barrier_behind_a_running_pass_is_answered_when_its_instance_is_ended() -> None:
    """Contract R10: the step goes on without it. That no question is left is checked after it."""
    met: list[bool] = []

    async def main(_: list[str]) -> None:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill("x")
        await context.flush()
        barrier = await inferlet.host.synchronize(context.queue)
        met.append(True)
        await inferlet.host.ready(await inferlet.host.synchronization_pollable(barrier))

    async with simulated_engine(SimulatedGpu(timing=LinearTiming(1.0))) as engine:
        launched = await engine.launch(NativeProgram(main))
        await trio.sleep(0.5)
        await engine.terminate(launched.instance)

    assert met == [True]
