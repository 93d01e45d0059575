"""`pie run`: one engine, one model, one instance."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import Literal

import attrs
import trio

from pie.batch import ModelRunner
from pie.engine import ThreadedModel, open_engine
from pie.errors import ModelError, PieError
from pie.guest.interfaces import ALL
from pie.guest.wasm import WasmHost
from pie.model import load
from pie.model.store import pull, resolve
from pie.offload import in_thread
from pie.programs import WasmProgram

from .client import serve_client
from .home import DEFAULT_MODEL, Home
from .progress import Say, progress, say_lines
from .targets import component_of, find
from .views import Json, Stream


@attrs.frozen(kw_only=True)
class Options:
    """What `pie run` was asked to do."""

    target: str
    arguments: tuple[str, ...]
    model: str
    dtype: Literal["float32", "auto"]
    seed: int | None
    sends: tuple[str, ...]
    json: bool
    stats: bool


def run_command(options: Options, home: Home) -> int:
    """Run the inferlet to its end; the exit code."""
    return trio.run(_interruptible, options, home)


async def _interruptible(options: Options, home: Home) -> int:
    """Run, cancelled by the first SIGINT or SIGTERM that nobody inside listens for."""
    received, code = 0, 0

    async def listen() -> None:
        nonlocal received
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            received = await anext(signals)
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            code = await _run(options, home)
            nursery.cancel_scope.cancel()
    except* PieError:
        # A child process may have got the signal as well, and failed with it.
        if not received:
            raise
    return 128 + received if received else code


async def _run(options: Options, home: Home) -> int:
    host = WasmHost(ALL, cache=home.compiled)
    try:
        with progress() as say:
            program, runner = await _prepare(options, home, host, say)
        home.prune()
        view = Json() if options.json else Stream(show_figures=options.stats)
        async with open_engine([ThreadedModel(runner)]) as engine:
            return await serve_client(
                engine,
                program,
                options.arguments,
                view,
                seed=options.seed,
                sends=options.sends,
            )
    finally:
        host.close()


async def _prepare(
    options: Options, home: Home, host: WasmHost, say: Say
) -> tuple[WasmProgram, ModelRunner]:
    """Load the program and the model; what can fail soon comes first."""
    place = find(options.target)
    model = await _model_path(options.model, home, say)
    if place.is_dir():
        say(f"building {place.name}")
    component = await in_thread(component_of, place, home.built)
    say(f"compiling {component.name}")
    program = WasmProgram(host, await host.load(component, name=place.name))
    say(f"loading {options.model}")
    runner = await in_thread(partial(load, dtype=options.dtype), model)
    return program, runner


async def _model_path(name: str, home: Home, say: Say) -> Path:
    """Where the model is. The default one is fetched if need be."""

    def tell(text: str) -> None:
        say(text)
        say_lines(text)

    try:
        return resolve(name, home.path)
    except ModelError:
        if name != DEFAULT_MODEL:
            raise
    return await in_thread(pull, name, home.path, tell)
