"""What the user sees, byte by byte."""

from __future__ import annotations

import json

import pytest

from pie.cli.views import Ending, Figures, Json, Stream, View
from pie.ids import EventCode
from pie.messages import Event

pytestmark = pytest.mark.slow

FIGURES = Figures(
    seconds=2.0,
    tokens=10,
    tokens_per_second=5.0,
    passes=4,
    batches=3,
    rows=20,
    busy_seconds=1.5,
    pages_peak=2,
    pages=8,
)


async def show(view: View, *items: str, end: str = "", code: int = EventCode.COMPLETED) -> None:
    """Items: text of stdout, or `!` + stderr, or `>` + a message."""
    for item in items:
        if item.startswith("!"):
            await view.output("stderr", item[1:].encode())
        elif item.startswith(">"):
            await view.message(item[1:])
        else:
            await view.output("stdout", item.encode())
    await view.end(Ending(Event(EventCode(code), end), FIGURES))


@pytest.mark.parametrize(
    ("items", "value", "out"),
    [
        ((), "", ""),
        ((), "the value", "the value\n"),
        ((), "a line\n", "a line\n"),
        (("the ", "value"), "the value", "the value"),
        (("the ", "value\n"), "the value", "the value\n"),
        (("a prompt: the value\n",), "the value", "a prompt: the value\n"),
        (("something else",), "the value", "something else\nthe value\n"),
        (("something else\n",), "the value", "something else\nthe value\n"),
        ((">the value",), "the value", "the value\nthe value\n"),
        (("a word", ">a message", "more"), "", "a word\na message\nmore"),
        (("", ">one", ">two\n"), "", "one\ntwo\n"),
    ],
)
async def test_the_value_is_shown_once(
    items: tuple[str, ...], value: str, out: str, capfd: pytest.CaptureFixture[str]
) -> None:
    await show(Stream(), *items, end=value)

    assert capfd.readouterr() == (out, "")


@pytest.mark.parametrize(
    ("code", "text", "err"),
    [
        (EventCode.EXCEPTION, "no luck", "pie: no luck\n"),
        (EventCode.EXCEPTION, "", "pie: the inferlet failed without a reason\n"),
        (EventCode.ABORTED, "terminated", "pie: aborted: terminated\n"),
        (EventCode.OUT_OF_RESOURCES, "9 > 8", "pie: out-of-resources: 9 > 8\n"),
        (EventCode.SERVER_ERROR, "a bug", "pie: server-error: a bug\n"),
    ],
)
async def test_a_failure_is_a_line_on_stderr(
    code: EventCode, text: str, err: str, capfd: pytest.CaptureFixture[str]
) -> None:
    await show(Stream(), "so far", "!a warning\n", end=text, code=code)

    assert capfd.readouterr() == ("so far", f"a warning\n{err}")


async def test_figures_come_last(capfd: pytest.CaptureFixture[str]) -> None:
    await show(Stream(show_figures=True), end="value")

    assert capfd.readouterr() == (
        "value\n",
        "pie: 10 tokens in 2.00 s (5.0 tokens/s); 4 passes with 20 rows in 3 batches (1.50 s); "
        "at most 2 of 8 pages\n",
    )


@pytest.mark.parametrize("code", [code for code in EventCode if code is not EventCode.MESSAGE])
async def test_json_is_one_line_in_every_ending(
    code: EventCode, capfd: pytest.CaptureFixture[str]
) -> None:
    await show(Json(), "aü", "!b", ">c\nd", end="text", code=code)

    out, err = capfd.readouterr()
    report = json.loads(out)
    completed = code is EventCode.COMPLETED
    assert err == ""
    assert out.count("\n") == 1
    assert (report["stdout"], report["stderr"], report["messages"]) == ("aü", "b", ["c\nd"])
    assert report["return"] == ("text" if completed else None)
    assert report["error"] == (None if completed else "text")
    assert report["stats"]["tokens_per_second"] == 5.0


async def test_bytes_that_are_not_text_do_not_break_the_json(
    capfd: pytest.CaptureFixture[str],
) -> None:
    view = Json()
    await view.output("stdout", b"\xe2\x82")
    await view.output("stdout", b"\xac\xff")
    await show(view)

    assert json.loads(capfd.readouterr().out)["stdout"] == "€\ufffd"
