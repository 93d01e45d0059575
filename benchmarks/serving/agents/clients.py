"""The same jobs as the inferlets do, for a program outside of the server.

Every step is a request with the whole text so far; the server's prefix cache is what saves it
from computing all of it again. What a job allows to run at once does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from .jobs import schema

Spec = Mapping[str, Any]


class Completer(Protocol):
    """What the clients need of an endpoint."""

    def complete(self, prompt: str, count: int) -> str: ...

    def complete_object(self, prompt: str, most_tokens: int, schema: Spec) -> str: ...

    def all(self, prompts: Sequence[str], count: int) -> list[str]: ...

    def at_once(self, calls: Sequence[Callable[[], Any]]) -> list[Any]: ...


def tree(server: Completer, spec: Spec, _: Spec) -> str:
    """A level of thoughts is as many threads, which ask for a thought and for its worth."""
    frontier = [""]
    for _level in range(spec["depth"]):
        begun = [text + opening for text in frontier for opening in spec["openings"]]
        grown = server.at_once([partial(_expand, server, spec, text) for text in begun])
        order = sorted(range(len(grown)), key=lambda i: (-grown[i][1], i))
        frontier = [grown[i][0] for i in order[: spec["keep"]]]
    return frontier[0]


def _expand(server: Completer, spec: Spec, text: str) -> tuple[str, int]:
    """The text with its thought, and what the model itself gives it, 0 to 9."""
    grown = text + server.complete(spec["prompt"] + text, spec["tokens"])
    question = spec["prompt"] + grown + spec["question"]
    verdict = server.complete(question, spec["verdict_tokens"])
    digits = [letter for letter in verdict if letter.isdecimal()]
    return grown, int(digits[0]) if digits else 0


def fanout(server: Completer, spec: Spec, _: Spec) -> list[str]:
    """The prefix is asked for once before, so that the others find it in the cache."""
    server.complete(spec["prefix"], 1)
    return server.all([spec["prefix"] + each for each in spec["questions"]], spec["tokens"])


def objects(server: Completer, spec: Spec, _: Spec) -> list[str]:
    """The server constrains the answers itself."""
    form = schema(spec)
    return server.at_once(
        [
            partial(server.complete_object, prompt, spec["most_tokens"], form)
            for prompt in spec["prompts"]
        ]
    )


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
