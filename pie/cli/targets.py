"""From what the user named to a component."""

from __future__ import annotations

import os
from pathlib import Path

import pie
from pie.build import build_cached
from pie.errors import UsageError

from .home import Home
from .progress import Say

LIBRARY = Path(pie.__file__).parents[1] / "inferlets"
"""The technique library, beside the package in a checkout."""


def find(target: str, library: Path = LIBRARY) -> Path:
    """The folder or file that `target` stands for.

    A plain word is a name of the library first and a path second; anything with a slash in it is
    a path. UsageError if there is no such thing.
    """
    is_word = os.sep not in target and target not in (".", "..")
    if is_word and _is_inferlet(library / target):
        return library / target
    path = Path(target)
    if path.is_dir() and not _is_inferlet(path):
        raise UsageError(f"{target} is a folder without an app.py")
    if path.exists():
        return path
    if not is_word or path.suffix:
        raise UsageError(f"{target}: no such file or folder")
    names = library_names(library)
    if not names:
        raise UsageError(
            f"no inferlet {target!r} here, and the library is not part of this installation: "
            "name a folder or a component, or use a checkout"
        )
    raise UsageError(f"no inferlet {target!r}; the library has {', '.join(names)}")


def library_names(library: Path = LIBRARY) -> list[str]:
    """Inferlets that can be named; none where only the package is installed."""
    if not library.is_dir():
        return []
    return sorted(folder.name for folder in library.iterdir() if _is_inferlet(folder))


def component_of(path: Path, home: Home, say: Say) -> Path:
    """The component itself, or the one built of an inferlet's folder and kept in `home`."""
    if not path.is_dir():
        return path
    say(f"building {path.name}")
    component = build_cached(path, home.built)
    home.prune()
    return component


def _is_inferlet(folder: Path) -> bool:
    return (folder / "app.py").is_file()
