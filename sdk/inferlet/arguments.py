"""Command-line options of an inferlet."""

from __future__ import annotations

import argparse
from typing import NoReturn

from .errors import Failure


class Arguments(argparse.ArgumentParser):
    """An `argparse` parser that fails the inferlet, with its usage, instead of exiting.

    `--help` is a failure as well: its text is what the client sees.
    """

    def __init__(self, name: str, description: str = "") -> None:
        super().__init__(prog=name, description=description)

    def print_help(self, file: object = None) -> NoReturn:
        raise Failure(self.format_help())

    def error(self, message: str) -> NoReturn:
        raise Failure(f"{self.format_usage()}{self.prog}: {message}")
