"""A job in turns: by our inferlets, and by a client of each server that is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.serving.contenders import Contender
from benchmarks.serving.plan import Plan
from benchmarks.serving.turns import Figures, Say, take_turns

from .jobs import Job


def compare(contenders: Sequence[Contender], job: Job, plan: Plan, say: Say) -> Figures:
    """Seconds from the beginning of the job to its last result."""

    def measured(contender: Contender, number: int) -> float:
        specs = [_fresh(spec, number) for spec in job.specs]
        seconds, results = contender.agents(job.inferlet, specs, job.tools)
        for spec, result in zip(specs, results, strict=True):
            if not job.right(spec, result):
                raise ValueError(f"not what was asked for: {str(result)[:200]}")
        say(f"{job.title}, round {number + 1}: {contender.name} {seconds:.3g} s")
        return seconds

    return take_turns(contenders, plan.agent_rounds, measured, say)


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
