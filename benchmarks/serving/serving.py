"""What our own process does: completions and agents as inferlets, and the bare loop beside them."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from benchmarks.latency import Late, milliseconds, watch_latency
from pie.engine import Engine, GuestProgram, open_engine
from pie.ids import EventCode
from pie.messages import Event, Launched

from . import bare
from .recording import RecordingDevice, pace

Row = dict[str, Any]
Tokens = Sequence[int]

PYTHON, C, STEPS, SAMPLING, BARE = "python", "c", "c-steps", "sampling", "bare"
"""Who decodes: guests with our Python library or in C that have the engine go on by itself; guests
in C that make each step, Python guests that draw each token; and nobody but the runner."""
_SESSION = "session"


@attrs.define(eq=False)
class Answer:
    """What an instance has said so far, and when."""

    times: list[float] = attrs.field(factory=list)
    messages: list[str] = attrs.field(factory=list)
    text: str = ""


@attrs.define(eq=False)
class Serving:
    """An engine with one model, and the benchmark's programs."""

    engine: Engine
    device: RecordingDevice
    programs: Mapping[str, GuestProgram]
    """`python` and `c`."""
    _session: Launched | None = None

    async def many(self, guest: str, prompts: Sequence[Tokens], count: int) -> Row:
        """Greedy completions of all prompts at once: seconds until the last has ended, tokens."""
        self.device.taken()
        began = time.perf_counter()
        if guest == BARE:
            run, info = self.device.run_bare, self.device.runner.info
            tokens = await trio.to_thread.run_sync(bare.complete, run, info, prompts, count)
        else:
            tokens = await self._all(guest, prompts, count)
        seconds = time.perf_counter() - began
        steps = self.device.taken()
        row: Row = {"seconds": seconds, "tokens": tokens}
        row["busy"] = sum(step.ended - step.began for step in steps) / seconds
        try:
            row["pace"] = pace(steps, len(prompts))
        except ValueError:
            row["pace"] = None
        return row

    async def decode(self, prompt: Tokens, count: int) -> Row:
        """One completion that is streamed: seconds from its first piece to its last."""
        spec = {"tokens": list(prompt), "count": count, "stream": True}
        answer = await self._run(PYTHON, ["completion", json.dumps(spec)])
        return {"seconds": answer.times[-1] - answer.times[0], "pieces": len(answer.times)}

    async def again(self, prompt: Tokens) -> Row:
        """The next token, from a guest that lives on and keeps its pages: seconds."""
        if self._session is None:
            self._session = await self.engine.launch(self.programs[PYTHON], [_SESSION, "{}"])
        began = time.perf_counter()
        await self.engine.send(self._session.instance, json.dumps(list(prompt)))
        async for item in self._session.outbox:
            if isinstance(item, Event) and item.code is EventCode.MESSAGE:
                return {"seconds": time.perf_counter() - began, "token": int(item.text)}
            raise RuntimeError(f"the session ended: {item}")
        raise AssertionError("an outbox ends with a terminal event")

    async def forget(self) -> Row:
        """End the guest of `again`."""
        if self._session is not None:
            await self.engine.terminate(self._session.instance)
            self._session = None
        return {}

    async def agents(self, job: str, specs: Sequence[Row], tools: Row) -> Row:
        """An inferlet for each spec, at once; a message of it is a call of a tool.

        Its answer comes after `tools["seconds"]` and is the next of `tools["answers"]`.
        """
        results: list[Any] = [None] * len(specs)

        async def one(number: int, spec: Row) -> None:
            calls = _tool(self.engine, tools)
            answer = await self._run(PYTHON, [job, json.dumps(spec)], calls)
            results[number] = json.loads(answer.text)

        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for number, spec in enumerate(specs):
                nursery.start_soon(one, number, spec)
        return {"seconds": time.perf_counter() - began, "results": results}

    async def latency(self, prompts: Sequence[Tokens], count: int) -> Row:
        """How late the loop runs a task while a guest decodes for each prompt, in ms."""
        late: list[Late] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_latency, late)
            await self._all(PYTHON, prompts, count)
            nursery.cancel_scope.cancel()
        row: Row = dict(milliseconds("latency", [look.seconds for look in late]))
        return row | milliseconds("own_latency", [look.own for look in late])

    async def _all(self, guest: str, prompts: Sequence[Tokens], count: int) -> list[list[int]]:
        results: list[list[int]] = [[] for _ in prompts]

        async def one(number: int, prompt: Tokens) -> None:
            answer = await self._run(*_completion(guest, prompt, count))
            results[number] = json.loads(answer.text)

        async with trio.open_nursery() as nursery:
            for number, prompt in enumerate(prompts):
                nursery.start_soon(one, number, prompt)
        return results

    async def _run(self, program: str, arguments: Sequence[str], calls: Any = None) -> Answer:
        launched = await self.engine.launch(self.programs[program], arguments)
        answer = Answer()
        async for item in launched.outbox:
            if not isinstance(item, Event):
                continue
            if item.code is EventCode.MESSAGE:
                answer.times.append(time.perf_counter())
                answer.messages.append(item.text)
                if calls is not None:
                    await calls(launched)
            elif item.code is EventCode.COMPLETED:
                answer.text = item.text
            else:
                raise RuntimeError(f"an inferlet ended with {item.code.name}: {item.text}")
        return answer


def _completion(guest: str, prompt: Tokens, count: int) -> tuple[str, list[str]]:
    """The program and the arguments with which it decodes."""
    if guest in (C, STEPS):
        return C, [str(count), ",".join(map(str, prompt)), *(["steps"] * (guest == STEPS))]
    job = "sampling" if guest == SAMPLING else "completion"
    return PYTHON, [job, json.dumps({"tokens": list(prompt), "count": count})]


def _tool(engine: Engine, tools: Row) -> Any:
    """Answers the calls of one instance, each after its time."""
    answers = iter(tools.get("answers", ()))

    async def answer(launched: Launched) -> None:
        await trio.sleep(tools["seconds"])
        await engine.send(launched.instance, next(answers))

    return answer


@asynccontextmanager
async def open_serving(
    device: RecordingDevice, programs: Mapping[str, GuestProgram]
) -> AsyncIterator[Serving]:
    """An engine as `pie run` has it."""
    async with open_engine([device]) as engine:
        serving = Serving(engine, device, programs)
        yield serving
        await serving.forget()
