"""What the server's metrics cost for each token: all that is told of it, without the engine.

    python -m benchmarks.metrics [--tokens N]

A token is a message taken, a pass submitted and finished, a guest that stops and starts again,
and its part of a step; the loop that tells it is in the figure. Printed is the best of five runs.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import attrs
import trio
from rich.console import Console
from rich.table import Table

from pie.actors.passes import PendingPass
from pie.actors.planner import Chunk
from pie.batch import Batch, ints
from pie.ids import InstanceId, Priority, QueueId
from pie.messages import ForwardPass, SubmitPass
from pie.server.metrics import Metrics
from pie.testing import HashModel

STEPS = (1, 8, 64, 1000)
"""Passes of a step."""
RUNS = 5


@attrs.frozen
class Told:
    """What observers are told of one decode pass."""

    message: SubmitPass
    chunk: Chunk

    @classmethod
    def of(cls, number: int, now: float) -> Told:
        instance, queue = InstanceId(number), QueueId(0)
        work = ForwardPass(inputs=(97,), positions=(0,), pages=(), length=1)
        message = SubmitPass(instance, queue, Priority.NORMAL, work)
        pending = PendingPass(
            sequence=number,
            instance=instance,
            queue=queue,
            priority=Priority.NORMAL,
            token=message,
            submitted_at=now - 0.001 * number % 0.1,
            number=0,
            seed=0,
            work=work,
        )
        return cls(message, Chunk(pending, 0, 1))


def _batch(passes: int) -> Batch:
    rows, ends = ints(range(passes)), ints(range(passes + 1))
    return Batch(
        tokens=rows, positions=rows, row_starts=ends, pages=rows, page_starts=ends, lengths=rows
    )


async def measure(passes: int, tokens: int) -> float:
    """Seconds of processor time per token, in steps of so many passes."""
    metrics = Metrics()
    model = metrics.model(HashModel().info)
    told = [Told.of(number, trio.current_time()) for number in range(passes)]
    step, batch = [each.chunk for each in told], _batch(passes)
    watch = partial(metrics.moving, InstanceId(0))
    steps = max(1, tokens // passes)
    began = time.thread_time()
    for _ in range(steps):
        for each in told:
            model.submitted(each.chunk.work)
            model.took(each.message)
            watch(False)
        model.began(step, batch)
        model.on_step(batch, 0.01)
        model.ended(step, None)
        for each in told:
            model.finished(each.chunk.work)
            watch(True)
    return (time.thread_time() - began) / (steps * passes)


async def measure_all(tokens: int) -> dict[int, float]:
    """By passes of a step."""
    return {passes: min([await measure(passes, tokens) for _ in range(RUNS)]) for passes in STEPS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=200_000)
    table = Table("passes of a step", "µs/token")
    for passes, seconds in trio.run(measure_all, parser.parse_args().tokens).items():
        table.add_row(f"{passes:,}", f"{seconds * 1e6:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
