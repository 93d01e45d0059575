"""The parts of the benchmark: each can be measured alone, and knows whom it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import attrs

from . import cases, disturbance, startup, tax
from .agents import compare as agents
from .agents.jobs import TITLES, jobs
from .contenders import Contender, Pie
from .plan import Plan
from .turns import FAILURES, Figures, Say, explained

GROUPS = {"speed": tuple(cases.CASES), "agents": tuple(TITLES)}
PARTS = (*GROUPS["speed"], "tax", *GROUPS["agents"], "neighbour", "latency", "startup")
NOBODY = frozenset({"startup"})
"""Parts that start what they need themselves."""
OURS_ALONE = frozenset({"tax", "latency"})


def named(text: str | None, known: Sequence[str], kind: str) -> list[str]:
    """The names in a list with commas, in the order of `known`; all without a text.

    A name that is not known ends the program: what was asked for is never left out in silence.
    """
    if text is None:
        return list(known)
    wanted = {name for word in text.split(",") if word for name in GROUPS.get(word, (word,))}
    unknown = wanted - set(known)
    if unknown:
        raise SystemExit(f"no {kind} is called {min(unknown)!r}; there are {', '.join(known)}")
    return [name for name in known if name in wanted]


@attrs.frozen(kw_only=True)
class Field:
    """Who is measured, and how much."""

    pie: Pie
    contenders: Sequence[Contender]
    """All who are ready, `pie` among them."""
    plan: Plan
    say: Say

    def measure(self, part: str) -> Figures:
        """The figures of one part; what fails is named in them."""
        if part not in NOBODY and self.pie not in self.contenders:
            return Figures()
        try:
            return self._measures()[part]()
        except FAILURES as error:
            reason = explained(self.pie, error)
            self.say(f"{part} FAILED: {reason}")
            return Figures(failed={self.pie.name: reason})

    def _measures(self) -> Mapping[str, Callable[[], Figures]]:
        return {
            **dict(self._compared()),
            "tax": partial(tax.measure, self.pie, self.plan, self.say),
            "neighbour": partial(disturbance.neighbour, self.contenders, self.plan, self.say),
            "latency": lambda: Figures(disturbance.latency(self.pie, self.plan)),
            "startup": lambda: Figures(startup.measure(self.pie.setting.model, self.plan.starts)),
        }

    def _compared(self) -> Iterator[tuple[str, Callable[[], Figures]]]:
        for case in cases.CASES.values():
            yield case.name, partial(cases.compare, self.contenders, case, self.plan, self.say)
        for job in jobs(self.plan.agent_size):
            yield job.name, partial(agents.compare, self.contenders, job, self.plan, self.say)
