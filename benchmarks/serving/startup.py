"""What a user waits for: `pie run` from its start to the first text, and its memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pie.build import build_cached

from .components import BUILD, ROOT
from .contenders import Row

_COMMAND = "import sys; from pie.cli import main; sys.exit(main())"


def first_text(model: Path, home: Path) -> Row:
    """One run: seconds to the first byte of its output, and the most memory it had."""
    component = build_cached(ROOT / "inferlets" / "text-completion", BUILD / "components")
    options = ["--prompt", "Name the capital of France.", "--temperature", "0"]
    command = [sys.executable, "-c", _COMMAND, "run", str(component), "--model", str(model)]
    caches = {"PIE_HOME": home, "XDG_CACHE_HOME": home}
    environment = os.environ | {name: str(path) for name, path in caches.items()}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's Python keeps what it compiles
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--", *options, "--max-tokens", "8"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    first = process.stdout.read(1)
    seconds = time.perf_counter() - began
    process.stdout.read()
    errors = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not first:
        raise RuntimeError(f"pie run ended with {process.returncode}: {errors[-300:]}")
    return {"seconds": seconds, "peak_rss": usage.ru_maxrss * 1024}


def measure(model: Path, starts: int) -> Row:
    """The very first run, with nothing compiled yet, and those after it."""
    with tempfile.TemporaryDirectory(prefix="pie-benchmark-") as folder:
        first, *later = [first_text(model, Path(folder)) for _ in range(1 + starts)]
    return {
        "first_seconds": first["seconds"],
        "warm_seconds": [row["seconds"] for row in later],
        "peak_rss": max(row["peak_rss"] for row in later),
        "model_bytes": model.stat().st_size,
    }
