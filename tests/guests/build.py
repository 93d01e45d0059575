"""Builds the guests of the tests with the usual toolchains, once per content of their sources."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.one_process import one_process

FOLDER = Path(__file__).parent
CACHE = FOLDER.parent.parent / ".build" / "guests"
_NODE_PACKAGES = (
    "@bytecodealliance/componentize-js@0.23",
    "@bytecodealliance/preview2-shim@0.17",
)
_WORLD = "guest"
_TIMEOUT_SECONDS = 540


def python_guest() -> Path:
    """`python/app.py`, by componentize-py: about 15 s the first time."""
    return _cached("python", _build_python)


def c_guest() -> Path:
    """`c/app.c`, by zig: the first compilation on a machine takes over a minute."""
    return _cached("c", _build_c)


def javascript_guest() -> Path:
    """`javascript/app.js`, by componentize-js; node modules go to the cache folder."""
    return _cached("javascript", _build_javascript)


def npm_is_missing() -> bool:
    return shutil.which("npm") is None or shutil.which("node") is None


def _cached(name: str, build: Callable[[Path, Path], None]) -> Path:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted([*(FOLDER / name).iterdir(), *(FOLDER / "wit").rglob("*.wit")]):
        if path.is_file():
            digest.update(path.read_bytes())
    made = CACHE / f"{name}-{digest.hexdigest()[:16]}.wasm"
    with one_process(CACHE):
        if not made.exists():
            part = made.with_suffix(f".{os.getpid()}.part")
            build(FOLDER / name, part)
            part.replace(made)
    return made


def _run(command: Sequence[str | Path], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}\n{done.stderr}")


def _build_python(source: Path, made: Path) -> None:
    script = "import sys; from componentize_py import script; sys.exit(script())"
    options: list[str | Path] = [
        "-d",
        FOLDER / "wit",
        "-w",
        _WORLD,
        "componentize",
        "app",
        "-p",
        source,
        "-o",
        made,
    ]
    _run([sys.executable, "-c", script, *options], source)


def _build_c(source: Path, made: Path) -> None:
    core = made.with_suffix(".core")
    flags = ["-target", "wasm32-wasi", "-Os", "-mexec-model=reactor", "-Wall", "-Wextra"]
    _run([sys.executable, "-m", "ziglang", "cc", *flags, "-o", core, source / "app.c"], source)
    embedded = made.with_suffix(".embedded")
    tools = Path(sys.executable).parent / "wasm-tools"
    _run([tools, "component", "embed", FOLDER / "wit", "-w", _WORLD, core, "-o", embedded], source)
    _run([tools, "component", "new", embedded, "-o", made], source)
    core.unlink()
    embedded.unlink()


def _build_javascript(source: Path, made: Path) -> None:
    modules = CACHE / "node"
    if not (modules / "node_modules").exists():
        modules.mkdir(parents=True, exist_ok=True)
        _run(
            ["npm", "install", "--no-audit", "--no-fund", "--prefix", modules, *_NODE_PACKAGES],
            modules,
        )
    shutil.copy(source / "build.mjs", modules)
    _run(["node", modules / "build.mjs", source / "app.js", FOLDER / "wit", _WORLD, made], modules)
