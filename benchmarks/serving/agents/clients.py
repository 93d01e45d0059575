"""The same jobs as the inferlets do, for a program outside of the server.

Every step is a request with the whole text so far; the server's prefix cache is what saves it
from computing all of it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

Spec = Mapping[str, Any]


class Completer(Protocol):
    """What the clients need of an endpoint."""

    def complete(self, prompt: str, count: int, **fields: Any) -> str: ...

    def all(self, prompts: Sequence[str], count: int) -> list[str]: ...

    def at_once(self, calls: Sequence[Callable[[], Any]]) -> list[Any]: ...


def tree(server: Completer, spec: Spec, _: Spec) -> str:
    """A level of thoughts takes two rounds of requests: the thoughts, and what they are worth."""
    frontier = [""]
    for _level in range(spec["depth"]):
        begun = [text + opening for text in frontier for opening in spec["openings"]]
        ends = server.all([spec["prompt"] + text for text in begun], spec["tokens"])
        grown = [text + end for text, end in zip(begun, ends, strict=True)]
        asked = [spec["prompt"] + text + spec["question"] for text in grown]
        verdicts = server.all(asked, spec["verdict_tokens"])
        order = sorted(range(len(grown)), key=lambda i: (-_score(verdicts[i]), i))
        frontier = [grown[i] for i in order[: spec["keep"]]]
    return frontier[0]


def _score(verdict: str) -> int:
    digits = [letter for letter in verdict if letter.isdecimal()]
    return int(digits[0]) if digits else 0


def fanout(server: Completer, spec: Spec, _: Spec) -> list[str]:
    """The prefix is asked for once before, so that the others find it in the cache."""
    server.complete(spec["prefix"], 1)
    return server.all([spec["prefix"] + each for each in spec["questions"]], spec["tokens"])


def objects(server: Completer, spec: Spec, form: Spec) -> list[str]:
    """The server constrains the answers itself; `form` are the fields that make it do so."""
    calls = [
        partial(server.complete, prompt, spec["most_tokens"], **form["request"])
        for prompt in spec["prompts"]
    ]
    return server.at_once(calls)


def tools(server: Completer, spec: Spec, calls: Spec) -> str:
    """Each call's answer makes a new request with everything before it."""
    text, said = spec["prompt"], ""
    for answer in calls["answers"][: spec["calls"]]:
        call = server.complete(text, spec["tokens"])
        time.sleep(calls["seconds"])
        text += call + spec["before"] + answer + spec["after"]
        said += call
    return said + server.complete(text, spec["tokens"])


def speculation(server: Completer, spec: Spec, _: Spec) -> str:
    """A client cannot guess ahead for the server: it asks for the text."""
    return server.complete(spec["prompt"], spec["count"])


CLIENTS: dict[str, Callable[[Completer, Spec, Spec], Any]] = {
    "tree": tree,
    "fanout": fanout,
    "objects": objects,
    "tools": tools,
    "speculation": speculation,
}
