"""The page table against a plain model, whatever is done to it (contract R1 to R6, R8, R10)."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from pie.actors.moves import Moves
from pie.actors.pages import PageTable
from pie.actors.passes import PendingPass
from pie.errors import OutOfResources
from pie.ids import InstanceId, Pointer, Priority, QueueId

from .page_machine import PageTableMachine
from .page_model import PAGE, SIZE
from .scheduling import a_pass


def run_machine(examples: int, steps: int, *, derandomize: bool = False) -> None:
    run_state_machine_as_test(
        PageTableMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=derandomize,
        ),
    )


def test_any_sequence_of_calls_does_what_the_plain_table_does() -> None:
    run_machine(250, 40, derandomize=True)


@pytest.mark.long
def test_any_sequence_of_calls_does_what_the_plain_table_does_at_length() -> None:
    run_machine(10_000, 60)


def test_what_fits_behind_a_request_that_is_given_up_is_granted_with_it() -> None:
    """Contract R5: nobody else is ended for memory, so nobody else stays first in line."""
    table = PageTable(SIZE, 4, 0)
    moves = Moves(table)
    old, young = InstanceId(0), InstanceId(1)
    for instance in (old, young):
        table.open(instance, "u")
        table.allocate(instance, PAGE, 1, f"first of {instance}")
    table.allocate(old, PAGE, 3, "too many")
    table.allocate(young, PAGE, 2, "what is free")
    table.answers()
    first, _ = moves.refusal()
    assert moves.refuse(first, OutOfResources("no room")) == []

    refused, granted = table.answers()
    assert (refused.token, type(refused.error)) == ("too many", OutOfResources)
    assert (granted.token, granted.value) == ("what is free", (1, 2))


def test_pages_that_an_older_pass_needs_do_not_move_for_a_younger_request() -> None:
    """It would ask for them back at once and be served first: moves would never end."""
    table = PageTable(SIZE, 1, 0, host_pages=4)
    old, young = InstanceId(0), InstanceId(1)
    table.open(old, "u")
    table.open(young, "u")
    table.allocate(old, PAGE, 1, "page")
    work = a_writing_pass(old)
    assert table.binding.submit(work) is None
    table.export(old, PAGE, [Pointer(0)], "x")
    table.drop_handles(old)
    table.allocate(young, PAGE, 1, "young")

    assert Moves(table).choose([]) is None
    table.binding.finish(work)
    chosen = Moves(table).choose([])
    assert chosen is not None
    assert len(chosen[1]) == 1


def a_writing_pass(instance: InstanceId) -> PendingPass:
    return PendingPass(
        sequence=1,
        instance=instance,
        queue=QueueId(0),
        priority=Priority.NORMAL,
        token=None,
        submitted_at=0.0,
        number=0,
        seed=0,
        work=a_pass([0], [Pointer(0)], 1, outputs=()),
    )
