"""The command line: `pie run`, `pie serve`, `pie build`, and what is needed around them.

Exit codes: 0 it went well, 1 the inferlet or something it needs failed, 2 wrong use, 70 a bug of
ours, 128 + n ended by signal n (Ctrl-C: 130). Whatever has an addressee is one line on stderr.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import typer

from pie.errors import PieError, UsageError, leaves

from .app import app

FAILED, MISUSED, OUR_BUG = 1, 2, 70


def main() -> NoReturn:
    """The entry point of the `pie` command."""
    sys.exit(command(sys.argv[1:]))


def command(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    logging.basicConfig(format="pie: %(message)s", level=logging.WARNING)
    try:
        return app(args=list(arguments), prog_name="pie", standalone_mode=False) or 0
    except typer.TyperException as error:
        return _misused(error)
    except Exception as error:  # noqa: BLE001  # the outermost boundary: nothing is hidden
        return _failed(error)


def _misused(error: typer.TyperException) -> int:
    # typer exports the base of these classes only.
    if type(error).__name__ == "NoArgsIsHelpError":
        _say(error.format_message())
        return MISUSED
    text = " ".join(error.format_message().split())
    if type(error).__name__ == "NoSuchOption":
        text += " Options of an inferlet come after `--`."
    _say(f"pie: {text}")
    return error.exit_code


def _failed(error: Exception) -> int:
    causes = list(leaves(error))
    if all(isinstance(cause, BrokenPipeError) for cause in causes):
        # Whoever read our output has gone; flushing it at exit would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if not all(isinstance(cause, PieError) for cause in causes):
        traceback.print_exception(error)
        return OUR_BUG
    for text in dict.fromkeys(str(cause) for cause in causes):
        _say(f"pie: {text}")
    return MISUSED if isinstance(causes[0], UsageError) else FAILED


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
