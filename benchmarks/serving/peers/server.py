"""What servers with OpenAI's endpoint have in common."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import attrs

from benchmarks.serving.agents.clients import CLIENTS
from benchmarks.serving.contenders import Row, Setting, Tokens
from benchmarks.serving.endpoint import Endpoint
from benchmarks.serving.processes import START_SECONDS, Process, Timed


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@attrs.define(eq=False)
class Server:
    """A process that serves on a port of this machine; a subclass says how it is started."""

    setting: Setting
    process: Process | None = attrs.field(default=None, init=False)
    _endpoint: Endpoint | None = attrs.field(default=None, init=False)

    @property
    def name(self) -> str:
        raise NotImplementedError

    def command(self, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        """What starts it, and with which additions to the environment."""
        raise NotImplementedError

    def extra(self) -> Row:
        """Fields of every request."""
        return {}

    def constrained(self, schema: Mapping[str, Any]) -> Row:
        """The fields of a request whose answer is to be JSON of this schema."""
        raise NotImplementedError

    @property
    def endpoint(self) -> Endpoint:
        assert self._endpoint is not None, "start comes first"
        return self._endpoint

    def start(self) -> Row:
        port, began = free_port(), time.perf_counter()
        command, environment = self.command(port)
        log = self.setting.logs / f"{self.name.replace(' ', '-')}.log"
        self.process = Process(command, log, environment=environment)
        self._endpoint = Endpoint(port, "model", self.extra(), self.constrained)
        while not self.endpoint.ready():
            if not self.process.running:
                raise RuntimeError(self.process.fate())
            if time.perf_counter() - began > START_SECONDS:
                raise RuntimeError(f"not ready after {START_SECONDS:g} s")
            time.sleep(0.1)
        return {}

    def decode(self, prompt: Tokens, count: int) -> float:
        times = self.endpoint.arrivals(prompt, count)
        return (count - 1) / (times[-1] - times[0])

    def first_token(self, prompt: Tokens, *, seen: bool = False) -> float:
        return self.endpoint.arrivals(prompt, 1)[0]

    def batch(self, prompts: Sequence[Tokens], count: int) -> float:
        with self.endpoint.opened() as client, Timed() as timed:
            client.all(prompts, count)
        return timed.seconds

    def agents(self, job: str, specs: Sequence[Row], tools: Row) -> tuple[float, list[Any]]:
        with self.endpoint.opened() as client, Timed() as timed:
            calls = [partial(CLIENTS[job], client, spec, tools) for spec in specs]
            results = client.at_once(calls)
        return timed.seconds, results
