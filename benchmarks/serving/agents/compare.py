"""The jobs in turns: by our inferlets, and by a client of each server that is there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.serving.cases import Say, awake, in_turns
from benchmarks.serving.contenders import Contender, Pie
from benchmarks.serving.peers.server import Server
from benchmarks.serving.plan import Plan
from benchmarks.serving.processes import Timed

from .clients import CLIENTS
from .jobs import Job, jobs, schema

Found = dict[str, dict[str, Any]]
"""Job -> its title, the seconds of each round by contender, and who failed why."""


def compare(contenders: Sequence[Contender], plan: Plan, say: Say) -> Found:
    """Seconds from the beginning of a job to its last result."""
    able = [each for each in contenders if isinstance(each, (Pie, Server))]
    found: Found = {}
    for job in jobs(plan.agent_size):
        seconds: dict[str, list[float]] = {}
        failed: dict[str, str] = {}
        for number in range(plan.agent_rounds):
            for contender in in_turns(able, number):
                if contender.name in failed:
                    continue
                try:
                    with awake(contender):
                        value, results = do(contender, job, number)
                    _check(job, results)
                except (RuntimeError, OSError, ValueError, KeyError) as error:
                    failed[contender.name] = str(error)
                    continue
                seconds.setdefault(contender.name, []).append(value)
                say(f"{job.title}, round {number + 1}: {contender.name} {value:.3g} s")
        found[job.name] = {"title": job.title, "seconds": seconds, "failed": failed}
    return found


def do(contender: Contender, job: Job, number: int) -> tuple[float, list[Any]]:
    """Seconds, and the result of each specification; no round finds the last one's texts."""
    specs = [_fresh(spec, number) for spec in job.specs]
    if isinstance(contender, Pie):
        row = contender.ask("agents", job.inferlet, specs, job.tools)
        return float(row["seconds"]), list(row["results"])
    assert isinstance(contender, Server)
    endpoint = contender.endpoint
    assert endpoint is not None
    tools = dict(job.tools)
    if job.inferlet == "objects":
        tools["request"] = contender.constrained(schema(specs[0]))
    client = CLIENTS[job.inferlet]
    with Timed() as timed:
        results = endpoint.at_once([partial(client, endpoint, spec, tools) for spec in specs])
    return timed.seconds, results


def _fresh(spec: dict[str, Any], number: int) -> dict[str, Any]:
    """The same job with another beginning, so that no cache has it from the round before."""
    mark = f"({number + 1}) "
    changed = dict(spec)
    for name in ("prompt", "prefix"):
        if name in spec:
            changed[name] = mark + spec[name]
    if "prompts" in spec:
        changed["prompts"] = [mark + prompt for prompt in spec["prompts"]]
    return changed


def _check(job: Job, results: list[Any]) -> None:
    for spec, result in zip(job.specs, results, strict=True):
        if not job.right(spec, result):
            raise ValueError(f"not what was asked for: {str(result)[:200]}")
