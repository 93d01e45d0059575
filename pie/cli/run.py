"""`pie run`: one engine, one model, one instance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from pie.batch import ModelRunner
from pie.collector import relax_collector
from pie.config import EngineConfig
from pie.devices import device_of
from pie.engine import open_engine
from pie.errors import ModelError, UsageError
from pie.guest.interfaces import ALL
from pie.guest.wasm import Program, WasmHost
from pie.model import DType, load
from pie.model.store import pull, resolve
from pie.offload import in_thread
from pie.programs import WasmProgram
from pie.trace import Tracer, tracing

from .client import serve_client
from .home import DEFAULT_MODEL, Home
from .interruption import run_interruptible
from .progress import Say, aloud, progress
from .targets import component_of, find
from .views import Json, Stream


@attrs.frozen(kw_only=True)
class Options:
    """What `pie run` was asked to do."""

    target: str
    arguments: tuple[str, ...]
    model: str
    dtype: DType
    seed: int | None
    sends: tuple[str, ...]
    json: bool
    stats: bool
    trace: Path | None


@attrs.frozen
class Ingredients:
    """The files of a run."""

    name: str
    """Of the program."""
    component: Path
    model: Path


def run_command(options: Options, home: Home) -> int:
    """Run the inferlet to its end; the exit code."""
    # Downloads and builds take long and are processes of their own: outside of Trio, Ctrl-C ends
    # them at once.
    with progress() as say:
        ingredients = _gather(options, home, say)
    return run_interruptible(partial(_run, options, ingredients, home))


def _gather(options: Options, home: Home, say: Say) -> Ingredients:
    """Find, fetch and build; what can fail soon comes first."""
    for text in (*options.arguments, *options.sends):
        _check_text(text)
    place = find(options.target)
    model = model_path(options.model, home, say)
    return Ingredients(place.name, component_of(place, home, say), model)


def _check_text(text: str) -> None:
    """Bytes of a command line that are not UTF-8 arrive as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"not UTF-8, which an inferlet gets: {text!r}") from None


def model_path(name: str, home: Home, say: Say) -> Path:
    """Where the model is. The default one is fetched if need be."""
    try:
        return resolve(name, home.path)
    except ModelError:
        if name != DEFAULT_MODEL:
            raise
    return pull(name, home.path, aloud(say))


async def _run(options: Options, ingredients: Ingredients, home: Home) -> int:
    host = WasmHost(ALL, cache=home.compiled)
    config = EngineConfig()
    try:
        # A trace that cannot be written is found before the work.
        async with _tracing(options.trace, config) as tracer:
            with progress() as say:
                say(f"loading {ingredients.component.name} and {options.model}")
                program, runner = await _load(host, options, ingredients)
            relax_collector()
            view = Json() if options.json else Stream(show_figures=options.stats)
            observe = None if tracer is None else tracer.model
            async with open_engine(
                [device_of(runner)], config, observe=observe, guests=tracer
            ) as engine:
                return await serve_client(
                    engine,
                    WasmProgram(host, program),
                    options.arguments,
                    view,
                    seed=options.seed,
                    sends=options.sends,
                )
    finally:
        host.close()


async def _load(
    host: WasmHost, options: Options, ingredients: Ingredients
) -> tuple[Program, ModelRunner]:
    """Both at once: what is compiled for either leaves the interpreter to the other."""
    programs: list[Program] = []

    async def load_program() -> None:
        programs.append(await host.load(ingredients.component, name=ingredients.name))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(load_program)
        runner = await in_thread(partial(load, dtype=options.dtype), ingredients.model)
    return programs[0], runner


@asynccontextmanager
async def _tracing(path: Path | None, config: EngineConfig) -> AsyncIterator[Tracer | None]:
    if path is None:
        yield None
        return
    async with tracing(path, config) as tracer:
        yield tracer
