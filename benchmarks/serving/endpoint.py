"""A client of OpenAI's completions endpoint, as a program outside of a server has to be one."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import attrs

from .processes import ANSWER_SECONDS

_PATH = "/v1/completions"
_HEADERS = {"Content-Type": "application/json"}

Prompt = str | Sequence[int]
Fields = Mapping[str, Any]


@attrs.frozen
class Endpoint:
    """Where a server is, and how it is asked for greedy text that goes on past the end of turn."""

    port: int
    model: str
    extra: Fields = attrs.field(factory=dict)
    """Fields of each request that this server needs."""
    constrained: Callable[[Fields], Fields] = lambda schema: {"json_schema": schema}
    """From a JSON schema to the fields of a request whose answer is to be of it."""

    @contextmanager
    def opened(self) -> Iterator[Client]:
        """A client for one job: its connections end with it."""
        client = Client(self)
        try:
            yield client
        finally:
            client.close()

    def connection(self, seconds: float = ANSWER_SECONDS) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)

    def body(self, prompt: Prompt, count: int, **fields: Any) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": count,
            "temperature": 0,
            "ignore_eos": True,
            **self.extra,
            **fields,
        }

    def arrivals(self, prompt: Prompt, count: int) -> list[float]:
        """Seconds from the request to each piece of its answer, streamed."""
        connection = self.connection()
        try:
            began = time.perf_counter()
            answer = _answer(connection, self.body(prompt, count, stream=True))
            return [time.perf_counter() - began for _ in _pieces(answer)]
        finally:
            connection.close()

    def ready(self, path: str = "/health") -> bool:
        """Whether the server answers."""
        connection = self.connection(5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@attrs.define(eq=False)
class Client:
    """Requests from as many threads as the job needs, on connections that are kept open.

    The standard library's: httpx takes more than twice its processor time, on the server's cores.
    """

    endpoint: Endpoint
    _idle: list[http.client.HTTPConnection] = attrs.field(factory=list, init=False)

    def close(self) -> None:
        for connection in self._idle:
            connection.close()

    def complete(self, prompt: Prompt, count: int) -> str:
        """The text of `count` tokens after `prompt`."""
        answer = self._post(self.endpoint.body(prompt, count))
        made = answer["usage"]["completion_tokens"]
        if made != count:
            raise RuntimeError(f"{made} tokens came of {count}")
        return _text(answer)

    def complete_object(self, prompt: Prompt, most_tokens: int, schema: Fields) -> str:
        """JSON of this schema after `prompt`."""
        fields = {**self.endpoint.constrained(schema), "ignore_eos": False}
        return _text(self._post(self.endpoint.body(prompt, most_tokens, **fields)))

    def all(self, prompts: Sequence[Prompt], count: int) -> list[str]:
        """A completion of each prompt, all at once."""
        return self.at_once([partial(self.complete, each, count) for each in prompts])

    @staticmethod
    def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Make all calls, each in a thread; their results in order."""
        with ThreadPoolExecutor(max(1, len(calls))) as pool:
            return [future.result() for future in [pool.submit(call) for call in calls]]

    def _post(self, body: Fields) -> dict[str, Any]:
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._exchanged(self.endpoint.connection(), body)
        try:
            return self._exchanged(connection, body)
        except ConnectionError:  # the server has ended it in the meantime
            connection.close()
            return self._exchanged(self.endpoint.connection(), body)

    def _exchanged(self, connection: http.client.HTTPConnection, body: Fields) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(_answer(connection, body).read())
        self._idle.append(connection)
        return read


def _answer(connection: http.client.HTTPConnection, body: Fields) -> http.client.HTTPResponse:
    """OSError if there is none, RuntimeError with what the server says against it."""
    connection.request("POST", _PATH, json.dumps(body), _HEADERS)
    answer = connection.getresponse()
    if answer.status != 200:
        said = answer.read()[:300]
        connection.close()
        raise RuntimeError(f"status {answer.status}: {said!r}")
    return answer


def _text(answer: Fields) -> str:
    text: str = answer["choices"][0]["text"]
    return text


def _pieces(lines: Iterator[bytes]) -> Iterator[None]:
    """One item for each event that brings text."""
    for line in lines:
        if line.startswith(b"data: {") and json.loads(line[6:]).get("choices"):
            yield
