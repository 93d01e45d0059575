"""Listings of more instances than one message has room for."""

from __future__ import annotations

import pytest

from pie.server.frames import InstanceEntry, LiveInstances
from pie.server.protocol import MAX_MESSAGE, encode

from .published_client import VERSIONS, Receiver


def entry(number: int, arguments: list[str], seconds: int = 0) -> InstanceEntry:
    return InstanceEntry(
        id=f"instance {number}",
        arguments=arguments,
        status="Attached",
        username="u",
        elapsed_secs=seconds,
        kv_pages_used=0,
    )


def listed(
    entries: list[InstanceEntry], version: str = VERSIONS[-1]
) -> list[tuple[str, list[str]]]:
    """What the published client shows of a listing."""
    frame = LiveInstances(corr_id=5, instances=entries)
    assert len(encode(frame)) < MAX_MESSAGE
    with Receiver(version) as receiver:
        answer = receiver.waiting("list_", 5)
        receiver.take([frame])
        return [(instance.id, instance.arguments) for instance in answer.result()]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_published_client_reads_a_listing(version: str) -> None:
    assert listed([entry(1, ["--prompt", "Hi"])], version) == [("instance 1", ["--prompt", "Hi"])]


def test_the_longest_arguments_are_left_out_first() -> None:
    entries = [entry(1, ["x" * 400_000]), entry(2, ["a", "y" * 600_000]), entry(3, ["z" * 300_000])]

    assert listed(entries) == [
        ("instance 1", ["x" * 400_000]),
        ("instance 2", ["(2 arguments left out)"]),
        ("instance 3", ["z" * 300_000]),
    ]


def test_then_the_oldest_instances_are_left_out() -> None:
    entries = [entry(number, ["x"], seconds=20_000 - number) for number in range(20_000)]
    shown = listed(entries)

    assert shown == [(e.id, e.arguments) for e in entries[-len(shown) :]]
    assert len(shown) > 8_000


def test_of_instances_as_old_the_later_ones_stay() -> None:
    entries = [entry(number, []) for number in range(20_000)]
    shown = listed(entries)

    assert [name for name, _ in shown] == [e.id for e in entries[-len(shown) :]]
