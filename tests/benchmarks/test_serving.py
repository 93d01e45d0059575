"""The serving benchmark: what it says of a model is true, and the report of a run has all of it."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import numpy as np
import pytest
import trio

from benchmarks.serving import bare
from benchmarks.serving.agents.clients import CLIENTS
from benchmarks.serving.agents.jobs import EXAMPLE, Job, are_objects, jobs, schema
from benchmarks.serving.components import PYTHON_GUEST, c_component
from benchmarks.serving.plan import prompts
from benchmarks.serving.recording import RecordingDevice, Step, pace
from benchmarks.serving.serving import BARE, PYTHON, SAMPLING, STEPS, C, Serving, open_serving
from pie.batch import Batch, BatchResult
from pie.devices import device_of
from pie.engine import GuestProgram
from pie.guest.interfaces import ALL
from pie.guest.wasm import WasmHost
from pie.programs import NativeProgram, WasmProgram
from pie.testing import HashModel, SimulatedGpu, load_main
from tests.multi_steps import greedy_steps

LETTERS = [[97 + (i * j) % 26 for i in range(20)] for j in range(1, 5)]


@asynccontextmanager
async def serving(
    model: HashModel | None = None, **programs: GuestProgram
) -> AsyncIterator[Serving]:
    device = RecordingDevice(device_of(model or HashModel(pages=1024)))
    native = {PYTHON: NativeProgram(load_main(PYTHON_GUEST)), **programs}
    async with open_serving(device, native) as opened:
        yield opened


@attrs.define
class Model:
    """What the clients ask: greedy completions of the hash model, one after the other."""

    asked: list[str] = attrs.field(factory=list)
    _lock: Any = attrs.field(factory=threading.Lock)

    def complete(self, prompt: str, count: int) -> str:
        with self._lock:
            self.asked.append(prompt)
            model = HashModel(pages=1024)
            ids = model.info.tokenizer.encode(prompt)
            (tokens,) = bare.complete(model.run, model.info, [ids], count)
            return model.info.tokenizer.decode(tokens)

    def complete_object(self, prompt: str, most_tokens: int, schema: Any) -> str:
        raise NotImplementedError("the hash model keeps to no schema")

    def all(self, prompts: Sequence[str], count: int) -> list[str]:
        return [self.complete(prompt, count) for prompt in prompts]

    def at_once(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        return [call() for call in calls]


@pytest.mark.slow
async def test_guests_and_the_bare_loop_decode_the_same() -> None:
    """Three streams of different lengths; the C guests are components."""
    host = WasmHost(ALL)
    try:
        loaded = await host.load(await trio.to_thread.run_sync(c_component))
        async with serving(c=WasmProgram(host, loaded)) as ours:
            some = [LETTERS[0], LETTERS[1][:7], LETTERS[2] * 2]
            rows = [await ours.many(guest, some, 9) for guest in (PYTHON, C, STEPS, BARE)]
    finally:
        host.close()

    assert all(row["tokens"] == rows[0]["tokens"] for row in rows)
    assert [len(tokens) for tokens in rows[0]["tokens"]] == [9, 9, 9]
    assert all(0 < row["busy"] <= 1 for row in rows)
    assert rows[-1]["pace"]["steps"] == 7, "all steps but the first, which takes the prompts"


@pytest.mark.slow
async def test_long_prompts_of_the_bare_loop_take_several_steps() -> None:
    device = RecordingDevice(device_of(HashModel()))

    tokens = bare.complete(
        device.run_bare, device.runner.info, [[97] * 300, [98] * 300, [99] * 5], 2
    )

    assert [step.rows for step in device.taken()] == [512, 93, 3]
    alone = [
        bare.complete(HashModel().run, HashModel().info, [[letter] * n], 2)
        for letter, n in ((97, 300), (98, 300), (99, 5))
    ]
    assert tokens == [each[0] for each in alone]


@pytest.mark.slow
async def test_a_prompt_that_was_seen_is_not_computed_again() -> None:
    async with serving() as ours:
        first = await ours.again(LETTERS[0] * 2)
        ours.device.taken()
        second = await ours.again([*LETTERS[0], *LETTERS[0][:-1], 120])
        rows = sum(step.rows for step in ours.device.taken())
        fresh = await ours.many(PYTHON, [[*LETTERS[0], *LETTERS[0][:-1], 120]], 1)

    assert first["seconds"] > 0
    assert rows <= ours.device.runner.info.page_size
    assert second["token"] == fresh["tokens"][0][0]


@pytest.mark.slow
async def test_streamed_pieces_and_latencies_are_timed() -> None:
    async with serving() as ours:
        row = await ours.decode(LETTERS[0], 6)
        late = await ours.latency(LETTERS, 4)
        drawn = await ours.many(SAMPLING, LETTERS, 5)

    assert row["pieces"] == 6
    assert row["seconds"] > 0
    assert late.keys() >= {"latency_ms_p99", "own_latency_ms_p99"}
    assert [len(tokens) for tokens in drawn["tokens"]] == [5] * 4
    assert len({tuple(tokens) for tokens in drawn["tokens"]}) > 1


def small(name: str) -> Job:
    (job,) = (job for job in jobs(0.25) if job.name == name)
    return job


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tree", "fanout", "tools8", "speculation"])
async def test_an_inferlet_and_a_client_do_the_same_job(name: str) -> None:
    """On the same model: each of its tokens depends on the whole text before it."""
    job, model = small(name), Model()
    tools = {**job.tools, "seconds": 0.001}
    client = CLIENTS[job.inferlet]

    wanted = [await trio.to_thread.run_sync(client, model, spec, tools) for spec in job.specs]
    async with serving() as ours:
        row = await ours.agents(job.inferlet, job.specs, tools)

    assert row["results"] == wanted
    assert len(set(model.asked)) > 1 or name == "speculation"


class Alphabet(HashModel):
    """After each letter comes the next one."""

    def run(self, batch: Batch) -> BatchResult:
        result = super().run(batch)
        letters = 97 + (batch.tokens[batch.sampled_rows] - 96) % 26
        return attrs.evolve(result, tokens=letters.astype(np.int32))


@pytest.mark.slow
async def test_guesses_count_as_far_as_the_model_agrees() -> None:
    """After "abc" came "defxyz" before: "def" is right, "xyz" is not."""
    spec = {"prompt": "abcdefxyz, abc", "count": 8, "guesses": 6}
    async with serving(Alphabet(pages=64)) as ours:
        row = await ours.agents("speculation", [spec], {})
        steps = ours.device.taken()

    assert row["results"] == ["defghijk"]
    assert [step.rows for step in steps][:2] == [14 + 6, 1]
    assert len(steps) == 1 + 4


@pytest.mark.slow
async def test_objects_have_the_fields_of_their_schema() -> None:
    """Free fields are what the model prefers among what their kind allows."""
    job = small("objects")
    spec = {**job.specs[0], "limits": {"string": 5, "integer": 2}}
    async with serving() as ours:
        row = await ours.agents(job.inferlet, [spec], {})

    assert are_objects(spec, row["results"][0])
    found = [json.loads(text) for text in row["results"][0]]
    assert [json.dumps(each) for each in found] == row["results"][0]
    assert json.dumps(json.loads(EXAMPLE)) == EXAMPLE, "the form that clients' models follow"
    assert [list(each) for each in found] == [schema(spec)["required"]] * len(spec["prompts"])
    opening = spec["prompts"][0] + '{"name": "'
    assert found[0]["name"] == Model().complete(opening, 5)


def test_wrong_objects_are_found() -> None:
    spec = {"prompts": ["a"], "fields": [["age", "integer"]]}

    assert are_objects(spec, ['{"age": 3}'])
    assert not are_objects(spec, ['{"age": "3"}'])
    assert not are_objects(spec, ['{"age": 3'])
    assert not are_objects(spec, [])


def test_the_pace_is_that_of_full_steps_next_to_one_another() -> None:
    steps = [Step(0.0, 0.5, 2, 64), Step(1.0, 1.5, 2, 2), Step(3.0, 3.5, 2, 2), Step(4, 5, 1, 1)]

    assert pace(steps, 2) == {"period": 2.0, "step": 0.5, "steps": 1}
    with pytest.raises(ValueError, match="had 3 streams"):
        pace(steps, 3)


async def test_steps_of_one_call_count_as_steps() -> None:
    device = RecordingDevice(SimulatedGpu(HashModel(multi_steps=3)))

    await device.run_steps(greedy_steps(3))

    steps = device.taken()
    assert [(step.passes, step.rows) for step in steps] == [(1, 1)] * 3
    assert steps[0].ended == steps[1].began < steps[1].ended == steps[2].began


def test_no_batch_begins_like_another() -> None:
    firsts = [
        prompt[0]
        for streams in (8, 32)
        for number in range(4)
        for prompt in prompts().batch(streams, number)
    ]

    assert len(set(firsts)) == len(firsts)
    assert {len(prompt) for prompt in prompts().batch(64, 7)} == {64}
    assert len(prompts().fresh(3)) == 512
