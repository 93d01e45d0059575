"""`pie install`, `pie programs`, `pie uninstall`: what clients of `pie serve` launch by name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
import typer

from pie.errors import UsageError

from .home import Home, open_home
from .progress import Say, progress

if TYPE_CHECKING:
    from pie.server.library import ProgramLibrary
    from pie.server.library_tables import Entry
    from pie.server.program_names import ProgramName

FIRST_VERSION = "0.1.0"


def add_commands(app: typer.Typer) -> None:
    """Let `app` have the commands of this module."""
    app.command()(install)
    app.command()(programs)
    app.command()(uninstall)


def install(
    target: Annotated[
        str,
        typer.Argument(
            metavar="NAME|DIR|FILE.wasm",
            help="An inferlet of the library, a folder with an app.py, or a component.",
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="[NS/]NAME[@VERSION]",
            help=f"Without it: std, the name of the file or folder, and {FIRST_VERSION}.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also if this version has other content.")
    ] = False,
) -> int:
    """Let every client launch an inferlet by its name, also of a server that runs."""
    from .interruption import run_interruptible
    from .targets import find

    place = find(target)
    called = _name_for(place, name)
    home = open_home()
    home.make_data()
    with progress() as say:
        wasm = _component(place, home, say)
        say(f"compiling {place.name}")
        interrupted = run_interruptible(partial(_check, wasm, place.name, home.compiled))
    if interrupted:
        return interrupted
    with _library(home) as library:
        entry = library.install(wasm, called, replace=replace)
    _print(f"installed {entry}\t{_size(entry.size)}\t{entry.hash}")
    return 0


def programs() -> int:
    """Show what can be launched by name: name, size, hash and for whom; then who has uploaded."""
    home = open_home()
    if home.programs.exists():
        with _library(home) as library:
            for entry in library.entries():
                _print(f"{entry}\t{_size(entry.size)}\t{entry.hash}\t{_whose(entry)}")
            for uploads in library.uploads():
                _print(f"user {uploads.user}\t{_size(uploads.size)}\t{uploads.count} uploads")
    return 0


def uninstall(
    name: Annotated[str, typer.Argument(metavar="[NS/]NAME@VERSION")],
    user: Annotated[
        str | None, typer.Option(metavar="USER", help="Take away a name of this user's uploads.")
    ] = None,
) -> int:
    """Take a name away. What runs goes on, and who has uploaded the same keeps its upload."""
    from pie.server.library_tables import EVERYBODY
    from pie.server.program_names import parse_name

    called = parse_name(name)
    if called.version is None:
        raise UsageError(f"which version of {called.base}? `pie programs` shows them")
    with _library(open_home()) as library:
        entry = library.uninstall(called, EVERYBODY if user is None else user)
    _print(f"uninstalled {entry}\t{_size(entry.size)}\t{entry.hash}")
    return 0


def _name_for(place: Path, chosen: str | None) -> ProgramName:
    """With a version. UsageError if it is not a name."""
    from pie.server.program_names import parse_name, parse_version

    if chosen is not None:
        name = parse_name(chosen)
        if name.hash is not None:
            raise UsageError(f"--as {chosen}: a hash comes of what is installed")
    else:
        path = place.resolve()
        try:
            name = parse_name(path.name if path.is_dir() else path.stem)
        except UsageError as error:
            raise UsageError(f"{error}; choose a name with --as") from None
    return attrs.evolve(name, version=name.version or parse_version(FIRST_VERSION))


def _component(place: Path, home: Home, say: Say) -> bytes:
    """Built if it is a folder, and binary."""
    from pie.guest.source import read_source

    from .targets import component_of

    return read_source(component_of(place, home, say))


async def _check(wasm: bytes, name: str, cache: Path) -> int:
    """Compile as a server does it, and where it finds the machine code; 0."""
    from pie.guest.interfaces import ALL
    from pie.guest.wasm import WasmHost

    host = WasmHost(ALL, cache=cache)
    try:
        if await host.needs_compiling(wasm):
            await host.compile(wasm, name=name)
        await host.load(wasm, name=name)
        return 0
    finally:
        host.close()


@contextmanager
def _library(home: Home) -> Iterator[ProgramLibrary]:
    from pie.server.library import ProgramLibrary

    library = ProgramLibrary.open(home.programs)
    try:
        yield library
    finally:
        library.close()


def _whose(entry: Entry) -> str:
    return f"user {entry.owner}" if entry.owner else "everybody"


def _size(size: int) -> str:
    kib = size / 1024
    return f"{kib:.1f} KiB" if kib < 1024 else f"{kib / 1024:.1f} MiB"


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
