"""Clients that mean no good, each a process of its own.

    python -m benchmarks.server.hostile KIND PORT PROGRAM [--acts N] [--nice N]

Does so many hostile things (without --acts: goes on for ever), tells how often which came of them,
as JSON, and keeps its connections until its stdin ends.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import attrs

from pie.guest.source import read_source

from .attacks import ATTACKS, Attack, Target
from .clients import GUEST
from .raw import Closed


@attrs.define(eq=False)
class Campaign:
    """Attacks of one kind, each in a thread, until there have been enough acts."""

    kind: str
    acts: float
    seen: Counter[str] = attrs.field(factory=Counter)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)
    _going_on: list[Iterator[str]] = attrs.field(factory=list)
    """They hold the connections."""

    def run(self, port: int, program: str) -> None:
        wasm = read_source(GUEST)
        kind = ATTACKS[self.kind]
        names = [f"{self.kind} {number}" for number in range(kind.at_once)]
        targets = [Target(port, program, wasm, name) for name in names]
        with ThreadPoolExecutor(kind.at_once) as threads:
            list(threads.map(partial(self._attack, kind.attack), targets))

    def _attack(self, attack: Attack, target: Target) -> None:
        while True:
            acts = attack(target)
            self._going_on.append(acts)
            try:
                for outcome in acts:
                    if not self._go_on(outcome):
                        return
            except Closed as closed:
                if not self._go_on(str(closed)):
                    return

    def _go_on(self, outcome: str) -> bool:
        with self._lock:
            self.seen[outcome] += 1
            return self.seen.total() < self.acts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=ATTACKS)
    parser.add_argument("port", type=int)
    parser.add_argument("program")
    parser.add_argument("--acts", type=int, default=math.inf)
    parser.add_argument("--nice", type=int, default=0)
    options = parser.parse_args()
    os.nice(options.nice)
    allow_many_files()
    campaign = Campaign(options.kind, options.acts)
    campaign.run(options.port, options.program)
    sys.stdout.write(json.dumps(campaign.seen) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)


def allow_many_files() -> None:
    """Each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
