"""Log lines: one record is one line, whatever users call themselves."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from pie.server.logs import JsonFormatter, TextFormatter


def _record(message: str, **extra: object) -> logging.LogRecord:
    record = logging.LogRecord("pie.server", logging.INFO, "here.py", 1, message, None, None)
    record.created, record.msecs = 1_769_860_800.25, 250.0
    record.__dict__.update(extra)
    return record


def test_a_line_for_people_has_its_fields_at_the_end() -> None:
    line = TextFormatter().format(_record("launched beam", user="ann", instance="1234"))

    assert line == "2026-01-31T12:00:00.250Z INFO launched beam user=ann instance=1234"


@pytest.mark.parametrize("name", ["a\nERROR all is lost", "\x1b[31mred", "\r\u2028x"])
def test_a_name_begins_no_line_and_moves_no_cursor(name: str) -> None:
    line = TextFormatter().format(_record("connected", user=name))

    assert line.isprintable()
    assert line.startswith("2026-01-31T12:00:00.250Z INFO connected user=")


def test_a_line_for_machines_is_one_object() -> None:
    line = JsonFormatter().format(_record("connected", user="a\nb", peer="::1:80"))

    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2026-01-31T12:00:00.250Z",
        "level": "info",
        "logger": "pie.server",
        "message": "connected",
        "user": "a\nb",
        "peer": "::1:80",
    }


def test_a_bug_has_its_traceback() -> None:
    record = _record("bug in a request")
    try:
        raise ValueError("why")
    except ValueError:
        record.exc_info = sys.exc_info()

    assert "ValueError: why" in json.loads(JsonFormatter().format(record))["traceback"]
    assert "ValueError: why" in TextFormatter().format(record)
