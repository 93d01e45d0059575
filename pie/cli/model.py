"""`pie model`: what is in the store, and getting more into it."""

from __future__ import annotations

import sys
from pathlib import Path

from pie.config import MIB
from pie.model.registry import MODELS
from pie.model.store import HUB_PREFIX, pull, resolve

from .home import DEFAULT_MODEL, Home
from .progress import aloud, progress


def show_models(home: Home) -> int:
    """A line per model: its name, its size, where it is, what it is."""
    for name, model in MODELS.items():
        path = home.path / "models" / f"{name}.gguf"
        place = str(path) if path.exists() else "not here yet"
        default = " (the default)" if name == DEFAULT_MODEL else ""
        _print(f"{name}\t{model.size / MIB:.0f} MiB\t{place}\t{model.description}{default}")
    for folder in sorted((home.path / "models" / "hf").glob("*/*")):
        name = f"{HUB_PREFIX}{folder.parent.name}/{folder.name}"
        _print(f"{name}\t{_size(folder) / MIB:.0f} MiB\t{folder}\t")
    return 0


def pull_model(name: str, home: Home) -> int:
    """Fetch a model and print where it is."""
    with progress() as say:
        path = pull(name, home.path, aloud(say))
    _print(str(path))
    return 0


def show_path(name: str, home: Home) -> int:
    """Print where a model is; ModelError if it is not here."""
    _print(str(resolve(name, home.path)))
    return 0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
