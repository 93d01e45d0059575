"""Programs that share pages with other instances, by exports and imports."""

from __future__ import annotations

from random import Random

import inferlet
from inferlet import host
from inferlet._native import bind

from pie.ids import EventCode
from pie.testing.sim.machine import Machine

from .program import Params, SimProgram, a_text, new_context, next_token, params_of, up_to

_try_import = bind("pie:ext/ext", "try-import")
_try_export = bind("pie:ext/ext", "try-export")


async def cached(args: list[str]) -> str:
    """Imports a prompt if somebody has exported it, else computes and exports it; then goes on.

    What it writes on belongs to it alone, whatever others do with the same pages.
    """
    params = params_of(args)
    model = await inferlet.get_model()
    queue = await host.create_queue(model.handle)
    size, prompt = model.page_size, params["prompt"].encode()
    name = f"prompt {params['prompt']}"
    pages = await _try_import(queue, host.KV_PAGE, name)
    if pages is None:
        pages = await host.allocate(queue, host.KV_PAGE, -(-len(prompt) // size))
        await next_token(queue, prompt, 0, pages, size)
        await _try_export(queue, host.KV_PAGE, pages, name)
    missing = -(-(len(prompt) + params["tokens"]) // size) - len(pages)
    if missing > 0:
        pages = [*pages, *await host.allocate(queue, host.KV_PAGE, missing)]
    text, token = b"", 65
    for at in range(len(prompt), len(prompt) + params["tokens"]):
        token = await next_token(queue, [token], at, pages, size)
        text += bytes([token])
    if params["releases"]:
        await host.release_exported(queue, host.KV_PAGE, name)
    return text.decode()


def _draw_cached(random: Random, machine: Machine) -> Params:
    return {
        "prompt": a_text(random, up_to(random, machine.slots // 6)),
        "tokens": up_to(random, min(6, machine.slots // 8)),
        "releases": random.random() < 0.4,
    }


async def copied(args: list[str]) -> str:
    """Exports pages of its own, writes on into them, and finds the export as it was."""
    params = params_of(args)
    context = await new_context(params["prompt"])
    queue, size = context.queue, context.model.page_size
    await context.flush()
    name = f"own {await host.get_instance_id()}"
    await host.export_resources(queue, host.KV_PAGE, context.pointers, name)
    own = await context.generate(
        max_tokens=params["tokens"], sampler=inferlet.Greedy(), ignore_eos=True
    )
    at = len(params["prompt"])
    tokens = []
    for _ in range(params["imports"]):
        pages = list(await host.import_resources(queue, host.KV_PAGE, name))
        if at == len(pages) * size:
            pages += await host.allocate(queue, host.KV_PAGE, 1)
        tokens.append(await next_token(queue, [65], at, pages, size))
        await host.deallocate(queue, host.KV_PAGE, pages)
    await host.release_exported(queue, host.KV_PAGE, name)
    return own.text + bytes(tokens).decode()


def _draw_copied(random: Random, machine: Machine) -> Params:
    return {
        "prompt": a_text(random, up_to(random, machine.slots // 8)),
        "tokens": up_to(random, min(6, machine.slots // 8)),
        "imports": random.randint(0, 2),
    }


async def exporting(args: list[str]) -> None:
    """Exports while its passes are on their way, and ends, in one of three ways."""
    params = params_of(args)
    context = await new_context(params["prompt"])
    await context.flush()
    name = f"shared {params['name']}"
    await _try_export(context.queue, host.KV_PAGE, context.pointers, name)
    if params["ends"] == "fails":
        raise inferlet.Failure("on purpose")
    if params["ends"] == "releases":
        await inferlet.sleep(0.1)
        await host.release_exported(context.queue, host.KV_PAGE, name)


def _draw_exporting(random: Random, machine: Machine) -> Params:
    return {
        "prompt": a_text(random, up_to(random, machine.slots // 6)),
        "name": random.randrange(2),
        "ends": random.choice(["fails", "releases", "returns"]),
    }


async def importing(args: list[str]) -> None:
    """Imports what `exporting` may have exported, reads and writes it, lets go of it."""
    params = params_of(args)
    model = await inferlet.get_model()
    queue = await host.create_queue(model.handle)
    size = model.page_size
    for _ in range(params["times"]):
        pages = await _try_import(queue, host.KV_PAGE, f"shared {params['name']}")
        if pages:
            await next_token(queue, [66], params["slot"] % (len(pages) * size), pages, size)
            await host.deallocate(queue, host.KV_PAGE, pages[::-1])
        await inferlet.sleep(params["pause"])


def _draw_importing(random: Random, machine: Machine) -> Params:
    often = random.random() < 0.5
    return {
        "name": random.randrange(2),
        "times": random.randint(10, 40) if often else random.randint(1, 4),
        "pause": 0.002 if often else 0.05,
        "slot": random.randrange(machine.slots),
    }


async def oversized(args: list[str]) -> None:
    """Asks for more than there is, with passes on their way (contract R5)."""
    context = await new_context("abc")
    await context.flush()
    await host.allocate(context.queue, host.KV_PAGE, params_of(args)["count"])


def _draw_oversized(random: Random, machine: Machine) -> Params:
    return {"count": machine.pages + random.randint(0, 3)}


PROGRAMS = [
    SimProgram(name="cached", main=cached, draw=_draw_cached, excuse="is gone"),
    SimProgram(name="copied", main=copied, draw=_draw_copied),
    SimProgram(name="exporting", main=exporting, draw=_draw_exporting),
    SimProgram(name="importing", main=importing, draw=_draw_importing, excuse="is gone"),
    SimProgram(
        name="oversized",
        main=oversized,
        draw=_draw_oversized,
        independent=False,
        ends=EventCode.OUT_OF_RESOURCES,
    ),
]
