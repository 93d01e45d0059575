"""What the agents are given to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from benchmarks.serving.processes import ROOT

Spec = dict[str, Any]

TOOL_SECONDS = 0.05
"""How long a tool takes to answer."""
_AGENTS = 4
"""Tool loops that run at once."""
_FIELDS = [["name", "string"], ["age", "integer"], ["city", "string"], ["job", "string"]]
_LIMITS = {"string": 20, "integer": 2}
EXAMPLE = '{"name": "Ann", "age": 41, "city": "Rome", "job": "smith"}'
"""So that the servers' models write no more spaces and lines than the inferlet fills in."""
_PEOPLE = ("a baker", "a pilot", "a nurse", "a judge", "a miner", "a tailor", "a poet", "a cook")
_TOPICS = ("the grant of copyright", "patents", "trademarks", "warranty", "liability", "notices")
TITLES = {
    "tree": "tree of thought",
    "fanout": "16 questions about one text",
    "objects": "8 objects of a JSON schema",
    "tools8": f"{_AGENTS} agents, 8 tool calls each",
    "tools32": f"{_AGENTS} agents, 32 tool calls each",
    "speculation": "text that repeats itself",
}
"""Of the jobs in their full size, by name."""


@attrs.frozen
class Job:
    """One job: the inferlet's name, a specification for each instance, and the tools' answers."""

    name: str
    inferlet: str
    specs: list[Spec]
    tools: Spec = attrs.field(factory=lambda: {"seconds": 0.0, "answers": []})
    right: Callable[[Spec, Any], bool] = lambda _, result: bool(result)
    """Whether a result does what the specification asks for."""

    @property
    def title(self) -> str:
        return TITLES[self.name]


def jobs(size: float) -> list[Job]:
    """All jobs; with `size` below 1 they have fewer steps."""
    return [_tree(size), _fanout(size), _objects(size), *_tools(size), _speculation(size)]


def _scaled(count: int, size: float, least: int = 1) -> int:
    return max(least, round(count * size))


def _tree(size: float) -> Job:
    spec = {
        "prompt": "Question: how can a small town save water in a dry summer?\n"
        "Think of ways, step by step, and keep the best.\n",
        "openings": [f"\nIdea {letter}: " for letter in "ABCD"],
        "depth": _scaled(3, size, 2),
        "keep": 2,
        "tokens": _scaled(20, size, 4),
        "question": "\nHow good is this idea, from 1 to 9? Answer: ",
        "verdict_tokens": 2,
    }
    return Job("tree", "tree", [spec])


def _fanout(size: float) -> Job:
    text = (ROOT / "LICENSE").read_text()[:2200]
    questions = [
        f"\n\nQuestion {number + 1}: what does it say about {topic}?\nAnswer:"
        for number, topic in enumerate((_TOPICS * 3)[: _scaled(16, size, 4)])
    ]
    spec = {"prefix": text, "questions": questions, "tokens": _scaled(24, size, 4)}
    return Job("fanout", "fanout", [spec])


def _objects(size: float) -> Job:
    people = _PEOPLE[: _scaled(8, size, 2)]
    prompts = [f"Persons as JSON.\nA person: {EXAMPLE}\nA person who is {who}: " for who in people]
    spec = {"prompts": prompts, "fields": _FIELDS, "limits": _LIMITS, "most_tokens": 128}
    return Job("objects", "objects", [spec], right=are_objects)


def _tools(size: float) -> list[Job]:
    found = []
    for calls in (8, 32):
        count = _scaled(calls, size, 2)
        answers = [
            f"{(7919 * i) % 997} items in store {i}, of which 3 are new" for i in range(count)
        ]
        specs = [
            {
                "prompt": f"You are clerk {agent}. You count what is in the stores, one by one, "
                "and ask the tool again and again until all is counted.\nCall: ",
                "calls": count,
                "tokens": 8,
                "before": "\nResult: ",
                "after": "\nCall: ",
            }
            for agent in range(_AGENTS)
        ]
        tools = {"seconds": TOOL_SECONDS, "answers": answers}
        found.append(Job(f"tools{calls}", "tools", specs, tools))
    return found


def _speculation(size: float) -> Job:
    lines = "".join(f"    total += price[{i}] * count[{i}]\n" for i in range(8))
    prompt = f"def bill(price, count):\n    total = 0\n{lines}    return total\n\n"
    spec = {"prompt": prompt + prompt[:60], "count": _scaled(160, size), "guesses": 6}
    return Job("speculation", "speculation", [spec])


def schema(spec: Mapping[str, Any]) -> Spec:
    """The fields of `objects` as a JSON schema."""
    kinds = {
        "string": {"type": "string", "maxLength": spec["limits"]["string"]},
        "integer": {"type": "integer", "minimum": 0, "maximum": 99},
    }
    names = [key for key, _ in spec["fields"]]
    return {
        "type": "object",
        "properties": {key: kinds[kind] for key, kind in spec["fields"]},
        "required": names,
        "additionalProperties": False,
    }


def are_objects(spec: Spec, result: Any) -> bool:
    """Whether every text is an object with all fields, each of its kind."""
    kinds = {"string": str, "integer": int}
    try:
        found = [json.loads(text) for text in result]
    except ValueError:
        return False
    return len(found) == len(spec["prompts"]) and all(
        isinstance(each, dict)
        and all(isinstance(each.get(key), kinds[kind]) for key, kind in spec["fields"])
        for each in found
    )
