"""Where a user's files are, by the rules of the XDG Base Directory Specification."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """For what can be fetched or made again: $PIE_HOME, else pie/ in the user's for caches.

    That is $XDG_CACHE_HOME, else ~/.cache. Neither folder is made.
    """
    return _chosen("XDG_CACHE_HOME", ".cache")


def data_folder() -> Path:
    """For what must outlive a cleared cache: $PIE_HOME, else pie/ in the user's for data.

    That is $XDG_DATA_HOME, else ~/.local/share.
    """
    return _chosen("XDG_DATA_HOME", ".local/share")


def _chosen(variable: str, default: str) -> Path:
    if home := os.environ.get("PIE_HOME"):
        return Path(home).absolute()
    # The specification says that a relative path there is to be ignored.
    folder = os.environ.get(variable, "")
    return (Path(folder) if os.path.isabs(folder) else Path.home() / default) / "pie"
