"""Builds the conformance component, once per content of its sources."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".build" / "conformance"
WORLD = "pie:conformance/guest"
_SCRIPT = "import sys; from componentize_py import script; sys.exit(script())"
_TIMEOUT_SECONDS = 300


def python_guest() -> Path:
    """`guest/app.py` with all cases, by componentize-py: about 15 s the first time."""
    folders = [ROOT / "wit", ROOT / "wit" / "ext", HERE / "wit"]
    sources = [
        *(HERE / "guest").rglob("*.py"),
        *(path for f in folders for path in f.rglob("*.wit")),
    ]
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(sources):
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    made = CACHE / f"python-{digest.hexdigest()[:16]}.wasm"
    if not made.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = made.with_suffix(f".{os.getpid()}.part")
        options = [option for folder in folders for option in ("-d", str(folder))]
        options += ["-w", WORLD, "componentize", "app", "-p", str(HERE / "guest"), "-o", str(part)]
        run([sys.executable, "-c", _SCRIPT, *options], HERE / "guest")
        part.replace(made)
    return made


def run(command: list[str], folder: Path) -> None:
    """Run a tool; RuntimeError with what it wrote if it fails."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}\n{done.stderr}")
