"""What people are told of a server's instances."""

from __future__ import annotations

import json

import pytest

from pie.server.listing import InstanceRow, listing

OLD = InstanceRow(
    uuid="0b7c6d0e-4c2f-4f1e-8c53-0d9f8a6f2a10",
    program="chat",
    user="ann",
    status="Attached",
    seconds=3723.25,
    pages=12,
    queued=1,
)
YOUNG = InstanceRow(
    uuid="f3b0a3a4-95f7-4a6d-9b6e-6e5ed92f9b7e",
    program="beam",
    user="bob",
    status="Detached",
    seconds=0.12345,
)


@pytest.mark.parametrize("accept", ["", "*/*", "application/json", "text/html,*/*;q=0.8"])
def test_most_clients_get_json(accept: str) -> None:
    body, kind = listing([YOUNG, OLD], accept)

    assert kind == "application/json"
    assert json.loads(body) == {
        "instances": [
            {
                "uuid": "0b7c6d0e-4c2f-4f1e-8c53-0d9f8a6f2a10",
                "program": "chat",
                "user": "ann",
                "status": "Attached",
                "seconds": 3723.25,
                "pages": 12,
                "queued": 1,
            },
            {
                "uuid": "f3b0a3a4-95f7-4a6d-9b6e-6e5ed92f9b7e",
                "program": "beam",
                "user": "bob",
                "status": "Detached",
                "seconds": 0.123,
                "pages": 0,
                "queued": 0,
            },
        ]
    }


@pytest.mark.parametrize("accept", ["text/plain", "text/plain;q=0.9, */*;q=0.1"])
def test_a_table_is_for_who_asks_for_text(accept: str) -> None:
    body, kind = listing([YOUNG, OLD], accept)

    assert kind == "text/plain; charset=utf-8"
    assert body.decode().splitlines() == [
        "uuid                                  program  user  status    seconds  pages  queued",
        "0b7c6d0e-4c2f-4f1e-8c53-0d9f8a6f2a10  chat     ann   Attached   3723.2     12       1",
        "f3b0a3a4-95f7-4a6d-9b6e-6e5ed92f9b7e  beam     bob   Detached      0.1      0       0",
    ]


def test_nobody_listed_is_said_too() -> None:
    assert json.loads(listing([], "")[0]) == {"instances": []}
    assert listing([], "text/plain")[0].decode().split() == [
        "uuid", "program", "user", "status", "seconds", "pages", "queued",
    ]  # fmt: skip


def test_names_cannot_move_the_reader_s_cursor() -> None:
    """Clients choose them."""
    row = InstanceRow(
        uuid="u", program="a\x1b[2J\nb", user="\udc80\u202e", status="Finished", seconds=1
    )

    text = listing([row], "text/plain")[0].decode()
    assert text.splitlines()[1].split()[:3] == ["u", "a\ufffd[2J\ufffdb", "\ufffd\ufffd"]
    assert len(text.splitlines()) == 2
    assert json.loads(listing([row], "")[0])["instances"][0]["program"] == "a\x1b[2J\nb"
