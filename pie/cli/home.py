"""Where Pie keeps what it can fetch or make again."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from pie.errors import UsageError

DEFAULT_MODEL = "smollm2-135m-instruct"
"""The model of `pie run`, fetched when it is first needed."""


@attrs.frozen
class Home:
    """A folder: `models/` and, in `cache/`, built inferlets and compiled code."""

    path: Path

    @property
    def built(self) -> Path:
        """Components made of inferlet folders."""
        return self.path / "cache" / "built"

    @property
    def compiled(self) -> Path:
        """Machine code of components; executed, so nobody else may write there."""
        return self.path / "cache" / "compiled"


def open_home() -> Home:
    """$PIE_HOME, else $XDG_CACHE_HOME/pie, else ~/.cache/pie; UsageError if it is no use."""
    path = _home_path()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make PIE_HOME {path}: {error.strerror}") from None
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise UsageError(f"cannot write in PIE_HOME {path}")
    return Home(path)


def _home_path() -> Path:
    if chosen := os.environ.get("PIE_HOME"):
        return Path(chosen).absolute()
    # The XDG specification says that a relative path there is to be ignored.
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "pie"
