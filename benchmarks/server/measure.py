"""What is measured: a server, ordinary and hostile clients, each in processes of their own."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs

from .children import Child

UNDISTURBED = "undisturbed"
_WARM_SECONDS = 1.0
"""From the start of a hostile client until it counts."""

Row = dict[str, Any]


@attrs.frozen
class Plan:
    """How much is measured."""

    rounds: int
    seconds: float
    """Of each kind of hostile client in each round."""
    messages: int
    """That are delivered, in all."""


USUAL, QUICK = Plan(4, 6.0, 40_000), Plan(1, 3.0, 8_000)


@attrs.frozen(eq=False)
class Bench:
    """A running server, and who measures it."""

    server: Child
    port: int
    program: str

    @classmethod
    @contextmanager
    def open(cls, folder: Path, *options: str) -> Iterator[Bench]:
        """What the server keeps is in `folder`."""
        log = folder / "server.log"
        with Child("serve", str(folder), *options, log=log) as server:
            where = server.hear()
            yield cls(server, where["port"], where["program"])

    def child(self, module: str, *arguments: str) -> Child:
        """A client's process."""
        return Child(module, *arguments, str(self.port), self.program)


def disturbances(
    bench: Bench, kinds: Sequence[str], plan: Plan, nice: int, say: Callable[[str], object]
) -> dict[str, Row]:
    """Time between tokens undisturbed and beside each kind of hostile client, in turns."""
    gaps: defaultdict[str, list[float]] = defaultdict(list)
    used: defaultdict[str, list[float]] = defaultdict(list)
    with bench.child("ordinary") as clients:
        for number in range(plan.rounds):
            for kind in (UNDISTURBED, *kinds):
                with ExitStack() as stack:
                    if kind != UNDISTURBED:
                        stack.enter_context(bench.child("hostile", kind, f"--nice={nice}"))
                        time.sleep(_WARM_SECONDS)
                    began, before = time.perf_counter(), bench.server.ask("usage")
                    gaps[kind] += clients.ask(str(plan.seconds))
                    after, seconds = bench.server.ask("usage"), time.perf_counter() - began
                    used[kind].append((after["process"] - before["process"]) / seconds)
                bench.server.ask("clear")
                say(f"round {number + 1} of {plan.rounds}: {kind}")
    return {kind: {"gaps": gaps[kind], "server_core_share": max(used[kind])} for kind in gaps}


def deliveries(bench: Bench, plan: Plan, *, layers: bool) -> dict[str, Row]:
    """What it takes to bring messages of inferlets to clients, on one connection and on 200."""
    rows = {}
    with bench.child("sink") as sink:
        for connections in (1, 200):
            sink.ask(f"{connections} 10")
            if layers:
                bench.server.ask("profile")
            before = bench.server.ask("usage")
            seconds = sink.ask(f"{connections} {plan.messages // connections}")
            after = bench.server.ask("usage")
            rows[f"{connections} connections"] = {
                "messages": plan.messages,
                "messages_per_second": plan.messages / seconds,
                "us_per_message": (after["process"] - before["process"]) / plan.messages * 1e6,
                "server_core_share": (after["process"] - before["process"]) / seconds,
                **({"layers": bench.server.ask("layers")["seconds"]} if layers else {}),
            }
            bench.server.ask("clear")
    return rows
