"""Where Pie keeps things: what it can fetch or make again, and what it cannot."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from pie.errors import UsageError
from pie.folders import cache_folder, data_folder
from pie.pruning import prune

DEFAULT_MODEL = "smollm2-135m-instruct"
"""The model of `pie run`, fetched when it is first needed."""
CACHE_BYTES = 2 << 30
"""What may be kept of built inferlets: about a hundred."""


@attrs.frozen
class Home:
    """Two folders, or one for both: `path` is a cache, `data` outlives a cleared cache."""

    path: Path
    """`models/` and, in `cache/`, built inferlets and compiled code."""
    data: Path = attrs.field(default=attrs.Factory(lambda self: self.path, takes_self=True))
    """What `pie serve` and `pie auth` keep. There only after `make_data`."""

    @property
    def users(self) -> Path:
        """The users file, which `pie auth` writes."""
        return self.data / "authorized_users.toml"

    @property
    def settings(self) -> Path:
        """The settings file (docs/configuration.md)."""
        return self.data / "config.toml"

    @property
    def token(self) -> Path:
        """The file with the internal token of the server that runs."""
        return self.data / "internal_token"

    @property
    def programs(self) -> Path:
        """A folder: inferlets that are installed, and that clients have uploaded."""
        return self.data / "programs"

    @property
    def state(self) -> Path:
        """A folder: key-value pairs and exported KV pages, as `EngineConfig.state_path`."""
        return self.data / "state"

    def make_data(self) -> None:
        """Make `data`, for its owner alone, unless it is there; UsageError if it is no use."""
        _make(self.data)

    @property
    def built(self) -> Path:
        """Components made of inferlet folders."""
        return self.path / "cache" / "built"

    @property
    def compiled(self) -> Path:
        """Machine code of components; executed, so nobody else may write there."""
        return self.path / "cache" / "compiled"

    def prune(self, limit: int = CACHE_BYTES) -> None:
        """Delete the oldest built inferlets if they have more than `limit` bytes."""
        prune(self.built, limit)


def open_home() -> Home:
    """The folders that `pie.folders` chooses. Makes the cache; UsageError if it is no use."""
    home = Home(cache_folder(), data_folder())
    _make(home.path)
    return home


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make {folder}, which PIE_HOME decides: {error.strerror}"
        ) from None
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise UsageError(f"cannot write in {folder}, which PIE_HOME decides")
