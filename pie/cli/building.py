"""`pie build`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pie.build import build
from pie.config import MIB
from pie.errors import UsageError

from .progress import progress


def build_inferlet(folder: Path, output: Path) -> int:
    """Build, and say where the component is. UsageError if `output` cannot be written."""
    _check_writable(output)
    with progress() as say:
        say(f"building {folder}")
        build(folder, output)
    sys.stdout.write(f"{output}: {output.stat().st_size / MIB:.1f} MiB\n")
    return 0


def _check_writable(output: Path) -> None:
    """Find out before the long work."""
    if output.is_dir():
        raise UsageError(f"cannot write {output}: it is a folder")
    parent = output.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {output}: {parent} is not a folder we may write in")
