"""`pie serve`: an engine and its models behind a port, until a signal."""

from __future__ import annotations

import fcntl
import logging
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from pie import __version__
from pie.batch import ModelRunner
from pie.collector import relax_collector
from pie.devices import device_of
from pie.errors import UsageError
from pie.guest.interfaces import ALL
from pie.guest.wasm import WasmHost
from pie.model import DType, load
from pie.offload import in_thread
from pie.server.authentication import Authentication
from pie.server.config import Auth
from pie.server.library import ProgramLibrary
from pie.server.logs import configure_logging
from pie.server.private_files import write_private
from pie.server.serving import Serving, serving
from pie.server.settings import ModelSettings, Settings, check_exposure, read_settings

from .home import DEFAULT_MODEL, Home
from .progress import progress
from .run import model_path

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Options:
    """What the command line says; None leaves it to the settings file."""

    settings: Path | None
    host: str | None
    port: int | None
    models: tuple[str, ...]
    dtype: DType | None
    log_json: bool
    verbose: bool


def serve_command(options: Options, home: Home) -> int:
    """Serve until SIGTERM or Ctrl-C; the exit code."""
    configure_logging(
        as_json=options.log_json, level=logging.DEBUG if options.verbose else logging.INFO
    )
    home.make_data()
    settings = _settings(options, home)
    auth = check_exposure(settings.server, home.users)
    with progress() as say:
        paths = [model_path(model.name, home, say) for model in settings.models]
    with _alone(home):
        _allow_many_files()
        authentication = Authentication.of(auth, home.users)
        # For tools of the same user on this machine, such as `pie top`.
        write_private(home.token, authentication.token.encode())
        return trio.run(_until_signalled, settings, paths, authentication, home)


def _settings(options: Options, home: Home) -> Settings:
    """The settings file, where there is one, with what the command line says instead."""
    if options.settings is not None or home.settings.exists():
        settings = read_settings(options.settings or home.settings)
    else:
        settings = Settings()
    models = settings.models
    if options.models or not models:
        models = tuple(ModelSettings(name=name) for name in options.models or (DEFAULT_MODEL,))
    if options.dtype is not None:
        models = tuple(attrs.evolve(model, dtype=options.dtype) for model in models)
    server = settings.server
    if options.host is not None:
        server = attrs.evolve(server, host=options.host)
    if options.port is not None:
        server = attrs.evolve(server, port=options.port)
    return attrs.evolve(settings, models=models, server=server)


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Of two servers with the same data, each would undo what the other does."""
    with (home.data / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UsageError(
                f"another server (process {lock.read().strip()}) uses {home.data}: stop it, or set "
                "PIE_HOME to another folder"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _allow_many_files() -> None:
    """Each client is an open file; the usual limit of 1024 is for programs that use select."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _until_signalled(
    settings: Settings, paths: list[Path], authentication: Authentication, home: Home
) -> int:
    """Serve until the first signal, then drain; a second one cuts that short."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            first = trio.Event()

            async def listen() -> None:
                await anext(signals)
                first.set()
                await anext(signals)
                log.warning("a second signal: nobody is waited for any more")
                nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            await _serve(settings, paths, authentication, home, first)
            nursery.cancel_scope.cancel()
    return 0


async def _serve(
    settings: Settings,
    paths: list[Path],
    authentication: Authentication,
    home: Home,
    stop: trio.Event,
) -> None:
    """Serve until `stop`, which before everything is there ends it as well, and then drain."""
    host = WasmHost(ALL, cache=home.compiled)
    try:
        library = await in_thread(ProgramLibrary.open, home.programs)
        try:
            devices = [
                device_of(await _load(model, path))
                for model, path in zip(settings.models, paths, strict=True)
                if not stop.is_set()
            ]
            relax_collector()
            if stop.is_set():
                return
            async with serving(
                devices,
                host=host,
                library=library,
                authentication=authentication,
                config=settings.server,
                engine_config=settings.engine_with_state(home.state),
            ) as running:
                _announce(settings, authentication, running)
                await stop.wait()
                await running.drain(settings.server.grace_seconds)
            log.info("stopped")
        finally:
            await in_thread(library.close)
    finally:
        host.close()


async def _load(model: ModelSettings, path: Path) -> ModelRunner:
    log.info("loading %s", path, extra={"model": model.name})
    return await in_thread(
        partial(load, path, dtype=model.dtype, kv=model.kv, pages=model.pages, name=model.alias)
    )


def _announce(settings: Settings, authentication: Authentication, running: Serving) -> None:
    """Say what there is."""
    for service in running.server.engine.services:
        info = service.info
        log.info(
            "%d KV pages of %d tokens, contexts of %d",
            info.pages,
            info.page_size,
            info.context_length,
            extra={"model": info.name},
        )
    server = settings.server
    secure = "wss" if server.tls_certificate else "ws"
    host = f"[{server.host}]" if ":" in server.host else server.host
    proof = "by key" if authentication.mode is Auth.KEYS else "not proven"
    log.info(
        "pie %s serves at %s://%s:%d, names are %s",
        __version__,
        secure,
        host,
        running.port,
        proof,
    )
