"""A client of OpenAI's completions endpoint, as a program outside of a server has to be one."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import attrs

_TIMEOUT_SECONDS = 600.0

Prompt = str | Sequence[int]


@attrs.frozen
class Endpoint:
    """Greedy completions that go on past the end of turn; one connection per request."""

    port: int
    model: str
    extra: Mapping[str, Any] = attrs.field(factory=dict)
    """Fields of each request that this server needs."""

    def complete(self, prompt: Prompt, count: int, **fields: Any) -> str:
        """The text of `count` tokens after `prompt`; fewer only where `fields` says so."""
        body = self._body(prompt, count, stream=False, **fields)
        answer = json.loads(self._post(body).read())
        text: str = answer["choices"][0]["text"]
        made = answer["usage"]["completion_tokens"]
        if made != count and body["ignore_eos"]:
            raise RuntimeError(f"{made} tokens came of {count}")
        return text

    def all(self, prompts: Sequence[Prompt], count: int) -> list[str]:
        """A completion of each prompt, all at once."""
        return self.at_once([partial(self.complete, each, count) for each in prompts])

    @staticmethod
    def at_once(calls: Sequence[Any]) -> list[Any]:
        """Make all calls, each in a thread; their results in order."""
        with ThreadPoolExecutor(max(1, len(calls))) as pool:
            return [future.result() for future in [pool.submit(call) for call in calls]]

    def arrivals(self, prompt: Prompt, count: int) -> list[float]:
        """Seconds from the request to each piece of its answer, streamed."""
        began = time.perf_counter()
        answer = self._post(self._body(prompt, count, stream=True))
        return [time.perf_counter() - began for _ in _pieces(answer)]

    def _body(self, prompt: Prompt, count: int, *, stream: bool, **fields: Any) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": count,
            "temperature": 0,
            "ignore_eos": True,
            "stream": stream,
            **self.extra,
            **fields,
        }

    def _post(self, body: dict[str, Any]) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_TIMEOUT_SECONDS)
        headers = {"Content-Type": "application/json", "Connection": "close"}
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"status {answer.status}: {answer.read()[:300]!r}")
        return answer

    def ready(self, path: str = "/health") -> bool:
        """Whether the server answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _pieces(lines: Iterator[bytes]) -> Iterator[None]:
    """One item for each event that brings text."""
    for line in lines:
        if line.startswith(b"data: {") and json.loads(line[6:]).get("choices"):
            yield
