"""Files that are no trace, or not all of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie.errors import UsageError
from pie.trace.reading import read

from .recording import Launch, a_guest, record


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.json"
    record(path, [Launch(a_guest(20, 5)), Launch(a_guest(40, 5))])
    return path


def _reason(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "No such file" in _reason(tmp_path / "none.json")


@pytest.mark.parametrize(
    "data", [b"", b"hello\n", b"[\n", b"[\n{}\n", b"\xff\xfe\x00[", b"[\n[]\n"]
)
def test_what_is_no_trace_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(data)

    assert "is no trace of Pie" in _reason(path)


def test_another_version_is_refused(good: Path) -> None:
    good.write_text(good.read_text().replace('"version":2', '"version":7'))

    assert "is a trace of version 7, this Pie reads 1 and 2" in _reason(good)


def test_a_broken_line_is_named(good: Path) -> None:
    lines = good.read_text().splitlines(keepends=True)
    lines[20] = lines[20][:30] + "\n"
    good.write_text("".join(lines))

    assert "line 21: not JSON" in _reason(good)


def test_a_missing_field_is_named(good: Path) -> None:
    good.write_text(good.read_text().replace('"delay":', '"relay":', 1))

    assert "not an event: KeyError 'delay'" in _reason(good)


def test_an_answer_that_is_missing_from_a_whole_file_is_named(good: Path) -> None:
    lines = good.read_text().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if '"name":"1 token"' in line)
    good.write_text("".join(lines[:first] + lines[first + 1 :]))

    assert "which is not in the trace" in _reason(good)


def test_a_killed_run_is_read_up_to_its_last_whole_line(good: Path) -> None:
    whole = read(good)
    text = good.read_text()
    good.write_text(text[: len(text) * 2 // 3])

    cut = read(good)
    assert whole.complete
    assert not cut.complete
    known = {request.op: request.args for request in whole.requests}
    assert 0 < len(cut.requests) < len(whole.requests)
    assert all(known[request.op] == request.args for request in cut.requests)


def test_a_trace_without_requests_is_refused(tmp_path: Path, good: Path) -> None:
    lines = [line for line in good.read_text().splitlines(keepends=True) if '"op"' not in line]
    good.write_text("".join(lines))

    assert "nothing was asked of a model" in _reason(good)
