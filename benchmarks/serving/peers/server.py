"""What servers with OpenAI's endpoint have in common."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from benchmarks.serving.contenders import Row, Setting, Tokens
from benchmarks.serving.endpoint import Endpoint
from benchmarks.serving.processes import Process, Timed

_START_SECONDS = 900.0
"""A first start compiles, on machines that others may use, too."""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@attrs.define(eq=False)
class Server:
    """A process that serves on a port of this machine; a subclass says how it is started."""

    setting: Setting
    endpoint: Endpoint | None = attrs.field(default=None, init=False)
    process: Process | None = attrs.field(default=None, init=False)

    @property
    def name(self) -> str:
        raise NotImplementedError

    def command(self, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        """What starts it, and with which additions to the environment."""
        raise NotImplementedError

    def constrained(self, schema: Row) -> Row:
        """The fields of a request whose answer is to be JSON of this schema."""
        raise NotImplementedError

    def start(self) -> Row:
        port, began = free_port(), time.perf_counter()
        command, environment = self.command(port)
        log = self.setting.logs / f"{self.name.replace(' ', '-')}.log"
        self.process = Process(command, log, environment=environment)
        self.endpoint = Endpoint(port, "model", self.extra())
        while not self.endpoint.ready():
            if not self.process.running:
                raise RuntimeError(self.process.fate())
            if time.perf_counter() - began > _START_SECONDS:
                raise RuntimeError(f"not ready after {_START_SECONDS:g} s")
            time.sleep(0.1)
        return {"ready_seconds": time.perf_counter() - began}

    def extra(self) -> dict[str, Any]:
        """Fields of every request."""
        return {}

    def pause(self) -> None:
        assert self.process is not None
        self.process.pause()

    def resume(self) -> None:
        assert self.process is not None
        self.process.resume()

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()

    def decode(self, prompt: Tokens, count: int) -> float:
        assert self.endpoint is not None
        times = self.endpoint.arrivals(prompt, count)
        return (count - 1) / (times[-1] - times[0])

    def first_token(self, prompt: Tokens, *, seen: bool = False) -> float:
        assert self.endpoint is not None
        return self.endpoint.arrivals(prompt, 1)[0]

    def batch(self, prompts: Sequence[Tokens], count: int) -> float:
        assert self.endpoint is not None
        with Timed() as timed:
            self.endpoint.all(prompts, count)
        return timed.seconds
