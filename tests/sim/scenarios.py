"""Scenarios of at most 400 checkpoints that pass through everything a guest can wait in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import attrs
import inferlet
import trio
from inferlet import host
from inferlet._native import bind

from pie.batch import Batch, BatchResult
from pie.config import EngineConfig, Scheduling
from pie.errors import PassFailed
from pie.ids import EventCode
from pie.programs import NativeProgram
from pie.testing import HashModel, SimulatedGpu, run_native, simulated_engine

from .cancelling import Scenario, Stage

SIZE = 16
T = TypeVar("T")
_try_import = bind("pie:ext/ext", "try-import")


def _small(pages: int) -> SimulatedGpu:
    return SimulatedGpu(HashModel(pages=pages))


async def _filled(text: str) -> inferlet.Context:
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill(text)
    return context


async def _steps(context: inferlet.Context, count: int) -> str:
    generation = await context.generate(
        max_tokens=count, sampler=inferlet.Greedy(), ignore_eos=True
    )
    return generation.text


# Contention: allocations that wait, pages that move to host memory and come back.


async def _pausing(args: list[str]) -> str:
    context = await _filled("the old one " * 3)
    first = await _steps(context, 2)
    await inferlet.send("idle")
    await inferlet.receive()
    return first + await _steps(context, 3)


async def _growing(args: list[str]) -> str:
    return await _steps(await _filled(args[0] * (2 * SIZE - 3)), 5)


async def _play_contention(stage: Stage) -> None:
    await stage.launch("old", NativeProgram(_pausing))
    await trio.sleep(1)
    await stage.launch("first", NativeProgram(_growing), "a")
    await stage.launch("second", NativeProgram(_growing), "b")
    await stage.play("component", "attattt")
    await trio.sleep(0.03)
    await stage.send("old", "go on")


CONTENTION = Scenario(
    name="contention",
    play=_play_contention,
    model=lambda: _small(5),
    config=EngineConfig(scheduling=Scheduling(host_pages=32)),
)


# Sharing: imports that wait for their writers, copies on write, on both sides.


async def _importing(args: list[str]) -> str:
    """Writes on in what it has imported, beside the exporter and others who do the same."""
    context = await _filled("x")
    await context.flush()
    pages = await host.import_resources(context.queue, host.KV_PAGE, "shared")
    text = ""
    for token in (65, 66):
        text += await _next(context.queue, pages, token, 3)
    return text


async def _next(queue: object, pages: list[int], token: int, slot: int) -> str:
    """The token after one that is written to a slot of the first page."""
    work = await host.create_pass(queue)
    await host.input_tokens(work, [token], [slot])
    await host.kv_cache(work, pages[:1], slot + 1)
    await host.output_tokens(work, [0], 0.0)
    result = await host.execute(work)
    await host.ready(await host.pass_pollable(result))
    (answer,) = await host.get_tokens(result)
    return chr(answer)


async def _play_sharing(stage: Stage) -> None:
    await stage.play("exporter", "auuuesttbt")
    await stage.word_of("exporter")
    await stage.launch("native", NativeProgram(_importing))
    await stage.play("importer", "i4tat")
    await stage.play("another", "bi3tqu")


SHARING = Scenario(
    name="sharing",
    play=_play_sharing,
    model=lambda: _small(6),
    config=EngineConfig(scheduling=Scheduling(host_pages=32)),
    needs={name: frozenset({"exporter"}) for name in ("importer", "another", "native")},
)


# Disk: exports that become files, imports that wait for them, pairs in SQLite.


async def _caching(args: list[str]) -> str:
    """The published sequence: a flag in kvs says that the prefix is exported."""
    context = await _filled("one page and a little more")
    if await inferlet.store.get("flag"):
        pages = await host.import_resources(context.queue, host.KV_PAGE, "prefix")
    else:
        await context.flush()
        pages = context.pointers
        await host.export_resources(context.queue, host.KV_PAGE, pages, "prefix")
        await inferlet.store.set("flag", "yes")
    await inferlet.send("cached")
    return await _next(context.queue, pages, 65, 7)


async def _play_disk(stage: Stage) -> None:
    await stage.launch("first", NativeProgram(_caching))
    await stage.word_of("first")
    await stage.launch("second", NativeProgram(_caching))
    await stage.play("exporter", "auueskq", "component")
    await stage.word_of("exporter")
    await stage.play("importer", "i2tk", "component")
    await stage.ended("second")
    await stage.launch("third", NativeProgram(_growing), "c")
    await stage.launch("fourth", NativeProgram(_caching))


DISK = Scenario(
    name="disk",
    play=_play_disk,
    model=lambda: _small(6),
    config=EngineConfig(scheduling=Scheduling(host_pages=32)),
    on_disk=True,
    needs={
        "second": frozenset({"first"}),
        "fourth": frozenset({"first", "second"}),
        "importer": frozenset({"exporter"}),
    },
)


# Restart: what an earlier engine has exported is read from slow files, one of them damaged.


async def _leave_behind(folder: Path) -> None:
    """Three exports, in an engine that ends."""

    async def main(args: list[str]) -> None:
        for name in ("good", "gone", "damaged"):
            context = await _filled(f"{name} is the prefix of a text")
            await context.flush()
            await host.export_resources(context.queue, host.KV_PAGE, context.pointers, name)

    config = EngineConfig(state_path=str(folder))
    async with simulated_engine(_small(8), config=config) as engine:
        assert (await run_native(engine, main)).event.code is EventCode.COMPLETED
    _damage(folder)


def _damage(folder: Path) -> None:
    (file,) = [p for p in folder.rglob("*.kv") if b'"damaged"' in p.read_bytes()]
    file.write_bytes(file.read_bytes()[:-1] + b"?")


async def _slowly(function: Callable[..., T], /, *arguments: object) -> T:
    await trio.sleep(0.02)
    return function(*arguments)


async def _reading(args: list[str]) -> str:
    context = await _filled("x")
    await context.flush()
    name = args[0]
    exported = dict(await host.all_exported(context.queue, host.KV_PAGE))
    if name not in exported:
        return "nothing"
    pages = await _try_import(context.queue, host.KV_PAGE, name)
    return "gone" if pages is None else await _next(context.queue, pages, 65, 5)


async def _releasing(args: list[str]) -> None:
    context = await _filled("x")
    await inferlet.sleep(0.01)
    await host.release_exported(context.queue, host.KV_PAGE, args[0])


async def _play_restart(stage: Stage) -> None:
    await stage.launch("first", NativeProgram(_reading), "good")
    await stage.launch("second", NativeProgram(_reading), "good")
    await stage.launch("damaged", NativeProgram(_reading), "damaged")
    await stage.play("component", "i5t", "good")
    await stage.ended("first")
    await stage.launch("late", NativeProgram(_reading), "gone")
    await stage.launch("releasing", NativeProgram(_releasing), "gone")


RESTART = Scenario(
    name="restart",
    play=_play_restart,
    model=lambda: _small(6),
    config=EngineConfig(scheduling=Scheduling(host_pages=32)),
    on_disk=True,
    prepare=_leave_behind,
    offload=_slowly,
    needs={"late": frozenset({"releasing", "first", "second", "damaged", "component"})},
    failing=frozenset({"late"}),
)


# Clients: messages, blobs, topics, strands, a slow reader, polls of several pollables.

MANY = 260
"""More than an outbox holds."""


async def _talking(args: list[str]) -> str:
    blob, texts = await inferlet.gather(inferlet.receive_blob(), _both_messages())
    subscription = await inferlet.subscribe("news")
    await inferlet.send("listening")
    heard = await subscription.next()
    await subscription.close()
    return f"{bytes(blob).decode()} {texts} {heard}"


async def _both_messages() -> str:
    return await inferlet.receive() + await inferlet.receive()


async def _telling(args: list[str]) -> str:
    await inferlet.print("telling")
    await inferlet.broadcast("news", "something new")
    await inferlet.store.set("told", "yes")
    return str(await inferlet.store.keys())


async def _flooding(args: list[str]) -> str:
    for number in range(MANY):
        await inferlet.send(str(number))
    first, second = await inferlet.gather(_then_steps("a"), _then_steps("b"))
    return f"{first}{second}"


async def _then_steps(text: str) -> str:
    return await _steps(await _filled(text), 2)


async def _play_clients(stage: Stage) -> None:
    await stage.launch_unread("flooding", NativeProgram(_flooding))
    await stage.launch("talking", NativeProgram(_talking))
    await stage.play("polling", "apsptr")
    await stage.send("talking", "a")
    await stage.send("talking", b"blob")
    await stage.word_of("polling")
    await stage.send("polling", "m")
    await stage.send("talking", "b")
    await stage.word_of("talking")
    await stage.launch("telling", NativeProgram(_telling))
    stage.read("flooding")


CLIENTS = Scenario(
    name="clients",
    play=_play_clients,
    needs={"talking": frozenset({"telling"})},
)


# Draining: guests that return with passes submitted, long ones split over steps, a lost step.


@attrs.define(eq=False)
class _LosesOne(SimulatedGpu):
    """Loses its first batch of two instances, one with a text of "a" and one with "b"."""

    lost: bool = False

    async def run(self, batch: Batch) -> BatchResult:
        result = await super().run(batch)
        if not self.lost and {ord("a"), ord("b")} <= set(batch.tokens.tolist()):
            self.lost = True
            raise PassFailed("lost")
        return result


async def _leaving(args: list[str]) -> str:
    context = await _filled(args[0] * 40)
    other = await _filled(args[0] * 30)
    await context.flush()
    await other.flush()
    await context.fill("more")
    await context.flush()
    return "left"


async def _play_draining(stage: Stage) -> None:
    await stage.launch("leaving", NativeProgram(_leaving), "a")
    await stage.launch("too", NativeProgram(_leaving), "b")
    await stage.play("component", "attuuu")
    await stage.launch("growing", NativeProgram(_growing), "c")


DRAINING = Scenario(
    name="draining",
    play=_play_draining,
    model=lambda: _LosesOne(HashModel(pages=16)),
    config=EngineConfig(scheduling=Scheduling(step_tokens=32)),
)


# Components: everything a component waits in, preempted, with too few pages.


async def _play_components(stage: Stage) -> None:
    await stage.play("first", "abuueskttfapq")
    await stage.word_of("first")
    await stage.play("second", "i3tatbsr")
    await stage.play("third", "bbattsauq")
    await stage.word_of("second")
    await stage.send("second", "m")
    await stage.send("first", "m")


COMPONENTS = Scenario(
    name="components",
    play=_play_components,
    model=lambda: _small(3),
    config=EngineConfig(scheduling=Scheduling(host_pages=32)),
    needs={"second": frozenset({"first"})},
)

ALL = (CONTENTION, SHARING, DISK, RESTART, CLIENTS, DRAINING, COMPONENTS)
