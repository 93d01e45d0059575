"""Components, folders and processes for the tests of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.model_file import model_home

PROBE = Path(__file__).parent / "probe"
COMMAND = [sys.executable, "-c", "from pie.cli import main; main()"]


def returning(text: str, *, error: bool = False, imported: str = "") -> str:
    """A component as text whose `run` sets `text` as return value, or fails with it."""
    data = "".join(f"\\{byte:02x}" for byte in text.encode())
    size = len(text.encode())
    return f"""
    (component
      (import "inferlet:core/runtime" (instance $runtime
        (export "set-return" (func (param "value" string)))))
      {imported}
      (core module $libc (memory (export "memory") 1))
      (core instance $libc (instantiate $libc))
      (core func $set (canon lower (func $runtime "set-return")
        (memory (core memory $libc "memory"))))
      (core module $m
        (import "env" "memory" (memory 1))
        (import "env" "set" (func $set (param i32 i32)))
        (data (i32.const 64) "{data}")
        (func (export "run") (result i32)
          (call $set (i32.const 64) (i32.const {size}))
          (i32.store (i32.const 0) (i32.const {int(error)}))
          (i32.store (i32.const 4) (i32.const 64))
          (i32.store (i32.const 8) (i32.const {size}))
          (i32.const 0)))
      (core instance $i (instantiate $m (with "env" (instance
        (export "memory" (memory $libc "memory")) (export "set" (func $set))))))
      (func $run (result (result (error string)))
        (canon lift (core func $i "run") (memory (core memory $libc "memory"))))
      (instance $exports (export "run" (func $run)))
      (export "inferlet:core/run" (instance $exports)))
    """


def environment(home: Path | None = None) -> dict[str, str]:
    return {**os.environ, "PIE_HOME": str(home or model_home())}


def pie_process(*arguments: str | Path, home: Path | None = None) -> subprocess.Popen[str]:
    """A `pie` of its own, with pipes for all its streams."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=environment(home),
    )
