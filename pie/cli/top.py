"""`pie top`: a running server, looked at again and again."""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import httpx
import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from pie.errors import UsageError
from pie.server.settings import is_loopback

from .client import is_ours_to_read
from .frames import frame, gone
from .home import Home
from .scrapes import Scrape, Span

ANSWER_SECONDS = 5.0
"""A server that takes longer is said not to answer."""
PLAIN_WIDTH = 100
"""Columns where there is no terminal."""
ROWS = 5
"""Instances of each list, at least."""


@attrs.frozen(kw_only=True)
class Options:
    """What `pie top` was asked to do."""

    url: str
    token_file: Path | None
    once: bool
    interval: float


class NoAnswer(Exception):
    """The server cannot be reached, or what answers is none."""


def top_command(options: Options, home: Home) -> int:
    """Show a server until q or Ctrl-C; with `once` one frame, and 1 if all is not well."""
    url = _url(options.url)
    headers = token_header(options.token_file, url, home)
    if options.once:
        return trio.run(_once, url, headers, options.interval)
    console = Console()
    if not console.is_terminal or console.is_dumb_terminal:
        raise UsageError("stdout is not a terminal that can be drawn on: --once prints one frame")
    return trio.run(_watch, url, headers, options.interval, console)


def _url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text.rstrip("/"))
    except httpx.InvalidURL as error:
        raise UsageError(f"{text!r} is not a URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError(f"{text!r} is not a URL like http://127.0.0.1:8080")
    return url


def token_header(token_file: Path | None, url: httpx.URL, home: Home) -> dict[str, str]:
    """The token of this machine's own server is for servers of this machine only."""
    path = token_file or home.token
    if token_file is None and not (is_loopback(url.host) and path.exists()):
        return {}
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the token in {path}: {error}") from None
    if not (token.isascii() and token.isprintable()):
        raise UsageError(f"{path} holds no token: one is a line of ASCII")
    return {"Authorization": f"Bearer {token}"}


# ------------------------------------------------------------------------- looking


@attrs.frozen
class _Server:
    """Where to look."""

    url: httpx.URL
    _client: httpx.AsyncClient

    async def look(self) -> Scrape:
        """NoAnswer says why there is nothing to see."""
        health = await self._get("/healthz", unhealthy=True)
        metrics = await self._get("/metrics")
        listing = await self._get("/v1/instances", accept="application/json")
        try:
            return Scrape.of(
                trio.current_time(),
                metrics=metrics.text,
                health=health.content,
                listing=listing.content,
            )
        except ValueError as error:
            raise NoAnswer(f"it does not answer as a Pie server does: {error}") from None

    async def _get(
        self, path: str, *, accept: str = "*/*", unhealthy: bool = False
    ) -> httpx.Response:
        try:
            response = await self._client.get(f"{self.url}{path}", headers={"Accept": accept})
        except httpx.HTTPError as error:
            raise NoAnswer(str(error) or type(error).__name__) from None
        if response.status_code in (401, 403):
            raise NoAnswer(f"{path} wants a token, or another one (--token-file)")
        if response.status_code != 200 and not (unhealthy and response.status_code == 503):
            raise NoAnswer(f"{path} gives {response.status_code} {response.reason_phrase}")
        return response


@asynccontextmanager
async def _server(url: httpx.URL, headers: dict[str, str]) -> AsyncIterator[_Server]:
    # A proxy that the environment names is for other machines.
    trust = not is_loopback(url.host)
    async with httpx.AsyncClient(
        headers=headers, timeout=ANSWER_SECONDS, trust_env=trust
    ) as client:
        yield _Server(url, client)


async def _once(url: httpx.URL, headers: dict[str, str], interval: float) -> int:
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    console = Console(width=width, force_terminal=False)
    try:
        async with _server(url, headers) as server:
            before = await server.look()
            await trio.sleep(interval)
            span = Span(before, await server.look())
    except NoAnswer as error:
        sys.stderr.write(f"pie: {gone(str(url), str(error)).plain}\n")
        return 1
    console.print(frame(str(url), span, rows=ROWS))
    return 0 if span.after.health.healthy else 1


# ------------------------------------------------------------------------ watching


async def _watch(url: httpx.URL, headers: dict[str, str], interval: float, console: Console) -> int:
    code = 0

    async def leave_on_signal() -> None:
        nonlocal code
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            number = await anext(signals)
        code = 0 if number == signal.SIGINT else 128 + number
        nursery.cancel_scope.cancel()

    async def leave_on_key() -> None:
        if await _pressed(b"q"):
            nursery.cancel_scope.cancel()

    with _keys(), Live(console=console, screen=True, auto_refresh=False) as live:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave_on_signal)
            nursery.start_soon(leave_on_key)
            async with _server(url, headers) as server:
                await _show(server, interval, live)
    return code


async def _show(server: _Server, interval: float, live: Live) -> None:
    """A frame after each look. When the server has gone, the last one stays below the news."""
    before: Scrape | None = None
    shown: RenderableType = Text()
    while True:
        try:
            after = await server.look()
        except NoAnswer as error:
            before = None
            news = gone(str(server.url), f"{error}; trying again, q leaves")
            live.update(Group(news, shown), refresh=True)
        else:
            rows = max(ROWS, (live.console.height - 16) // 2)
            shown = frame(str(server.url), Span(before or after, after), rows=rows)
            live.update(shown, refresh=True)
            before = after
        await trio.sleep(interval)


@contextmanager
def _keys() -> Iterator[None]:
    """Keys arrive as they are pressed, and are not shown."""
    source = sys.stdin.fileno()
    if not (os.isatty(source) and is_ours_to_read(source)):
        yield
        return
    before = termios.tcgetattr(source)
    tty.setcbreak(source)
    try:
        yield
    finally:
        termios.tcsetattr(source, termios.TCSADRAIN, before)


async def _pressed(key: bytes) -> bool:
    """Wait until a key is pressed; False if none can be."""
    source = sys.stdin.fileno()
    if not (os.isatty(source) and is_ours_to_read(source)):
        return False
    while True:
        await trio.lowlevel.wait_readable(source)
        pressed = os.read(source, 64)
        if not pressed or key in pressed:
            return bool(pressed)
