"""Programs that talk: to their clients, to each other, to the key-value store."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import inferlet
from inferlet import host

from pie.testing.sim.machine import Machine

from .program import Params, SimProgram, a_text, new_context, params_of, up_to


async def echo(args: list[str]) -> str:
    """Answers each message of its client with the model's next tokens."""
    context = await new_context("hello")
    texts = []
    for _ in range(params_of(args)["messages"]):
        await context.fill(await inferlet.receive())
        answer = await context.generate(max_tokens=2, sampler=inferlet.Greedy(), ignore_eos=True)
        await inferlet.send(answer.text)
        texts.append(answer.text)
    return "".join(texts)


def _draw_echo(random: Random, machine: Machine) -> Params:
    return {"messages": random.randint(1, min(4, machine.slots // 16))}


def _messages(random: Random, params: Params) -> Sequence[str]:
    return [a_text(random, 2) for _ in range(params["messages"])]


async def gossip(args: list[str]) -> None:
    """Tells a topic about each token and listens for a while."""
    params = params_of(args)
    topic = await inferlet.subscribe(params["topic"])
    context = await new_context("gossip")

    async def listen() -> None:
        async for _ in topic:
            await inferlet.send("heard")

    async def speak() -> None:
        for _ in range(params["times"]):
            token = await context.step(inferlet.Greedy())
            context.fill_tokens([token])
            await inferlet.broadcast(params["topic"], chr(token))
            await inferlet.sleep(params["seconds"])
        await topic.close()

    await inferlet.gather(listen(), speak())


def _draw_gossip(random: Random, machine: Machine) -> Params:
    return {
        "topic": random.choice("xy"),
        "times": up_to(random, min(6, machine.slots // 16)),
        "seconds": random.choice([0, 0.03]),
    }


async def remember(args: list[str]) -> str:
    """Reads what it wrote to the store, with passes in between."""
    params = params_of(args)
    mine = await host.get_instance_id()
    context = await new_context("remember")
    seen = []
    for number in range(params["times"]):
        key = f"{mine} {number % 2}"
        await inferlet.store.set(key, f"{number}")
        context.fill_tokens([await context.step(inferlet.Greedy())])
        seen.append(f"{await inferlet.store.get(key)}")
        if number == params["deletes"]:
            await inferlet.store.delete(key)
            assert not await inferlet.store.exists(key)
    left = [key for key in await inferlet.store.keys() if key.startswith(mine)]
    return f"{seen} {len(left)} {await context.text()}"


def _draw_remember(random: Random, machine: Machine) -> Params:
    return {
        "times": up_to(random, min(5, machine.slots // 16)),
        "deletes": random.randrange(5),
    }


async def chatty(args: list[str]) -> str:
    """Sends more than waits for a slow client."""
    count = params_of(args)["count"]
    for number in range(count):
        await inferlet.send(f"{number}")
    await inferlet.print("done")
    return f"{count}"


def _draw_chatty(random: Random, machine: Machine) -> Params:
    return {"count": random.choice([3, 280])}


async def pausing(args: list[str]) -> str:
    """Holds its pages while it sleeps, and goes on: they may have moved meanwhile."""
    params = params_of(args)
    context = await new_context(params["prompt"])
    texts = []
    for seconds in params["pauses"]:
        text = await context.generate(max_tokens=2, sampler=inferlet.Greedy(), ignore_eos=True)
        texts.append(text.text)
        await inferlet.sleep(seconds)
    return " ".join(texts)


def _draw_pausing(random: Random, machine: Machine) -> Params:
    return {
        "prompt": a_text(random, up_to(random, machine.slots // 3)),
        "pauses": [random.choice([0, 0.1, 1]) for _ in range(random.randint(1, 3))],
    }


PROGRAMS = [
    SimProgram(name="echo", main=echo, draw=_draw_echo, messages=_messages),
    SimProgram(name="gossip", main=gossip, draw=_draw_gossip, independent=False),
    SimProgram(name="remember", main=remember, draw=_draw_remember),
    SimProgram(name="chatty", main=chatty, draw=_draw_chatty),
    SimProgram(name="pausing", main=pausing, draw=_draw_pausing),
]
