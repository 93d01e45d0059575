"""Making a component of an inferlet's folder, with componentize-py.

The folder's `app.py` (`async def main(args)`) and its neighbours go in together with the guest
library and Jinja. componentize-py imports them at build time and keeps the heap, so an instance
starts in milliseconds; host calls at import are therefore mistakes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

from pie.errors import ProgramError, UsageError

APP = "app"
"""Name of the inferlet's module."""

_WORLD = "pie:guest/inferlet"
_LIBRARIES = ("inferlet", "jinja2", "markupsafe")
_ENTRY = "pie_entry"
_ENTRY_SOURCE = f"""\
import {APP}
from inferlet._component import exported

Run = exported({APP})
"""
_FRAME = re.compile(r'File "/1/(.+?)", line (\d+).*\n(.*)')
"""A line of a traceback in the inferlet's own files: the second folder on the tool's path."""
_CAUSE = re.compile(r"\nCaused by:\n(.*?)\n\s*\nStack backtrace:", re.DOTALL)
_TRAPPING_STUB = re.compile(r"called trapping stub: (\S+)")
_COMMAND = "import sys; from componentize_py import script; sys.exit(script())"


def build(folder: Path, output: Path) -> None:
    """Write the component of the inferlet in `folder` to `output`; takes 10 to 20 s.

    Raises UsageError if there is no `app.py` or componentize-py is not installed, ProgramError
    with the lines that matter if the inferlet's source is wrong.
    """
    source = folder / f"{APP}.py"
    if not source.is_file():
        raise UsageError(f"{folder} is not an inferlet: it has no {APP}.py")
    _check_syntax(folder)
    with tempfile.TemporaryDirectory(prefix="pie-build-") as name:
        staging = Path(name)
        _stage(staging)
        made = staging / "component.wasm"
        _componentize(folder.resolve(), staging, made)
        output.parent.mkdir(parents=True, exist_ok=True)
        part = output.with_name(f"{output.name}.{os.getpid()}.part")
        shutil.copyfile(made, part)
        part.replace(output)


def build_cached(folder: Path, cache: Path) -> Path:
    """The component of the inferlet in `folder`, built into `cache` unless it is there already.

    Its name holds a hash of everything that goes in, so a changed source makes a new component.
    """
    component = cache / f"{folder.resolve().name}-{fingerprint(folder)}.wasm"
    if not component.is_file():
        build(folder, component)
    return component


def fingerprint(folder: Path) -> str:
    """A hash of the inferlet's Python files, the guest library, the WIT and the tool's version."""
    _require_tool()
    digest = hashlib.sha256()
    digest.update(importlib.metadata.version("componentize-py").encode())
    digest.update(_ENTRY_SOURCE.encode())
    for root in (folder, *map(_package, _LIBRARIES)):
        for path in _sources(root):
            digest.update(f"\0{path.relative_to(root)}\0".encode())
            digest.update(path.read_bytes())
    for path in _wit_files():
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _require_tool() -> None:
    if importlib.util.find_spec("componentize_py") is None:
        raise UsageError("building inferlets needs componentize-py: pip install 'pie-trio[build]'")


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise UsageError(f"package {name!r} is not installed; components of inferlets contain it")
    return Path(spec.origin).parent


def _sources(root: Path) -> Iterator[Path]:
    """The Python files below `root`, in a fixed order."""
    for path in sorted(root.rglob("*.py")):
        if "__pycache__" not in path.parts:
            yield path


def _wit_files() -> list[Path]:
    library = _package("inferlet")
    return sorted(
        path for part in ("wit", "world") for path in (library / part).resolve().rglob("*.wit")
    )


def _check_syntax(folder: Path) -> None:
    """Report a syntax error without starting the tool."""
    for path in _sources(folder):
        try:
            compile(path.read_bytes(), path.name, "exec", dont_inherit=True)
        except SyntaxError as error:
            line = (error.text or "").strip()
            raise ProgramError(f"{path}:{error.lineno}: {error.msg}: {line}") from None


def _stage(staging: Path) -> None:
    for name in _LIBRARIES:
        root = _package(name)
        for path in _sources(root):
            target = staging / name / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    (staging / f"{_ENTRY}.py").write_text(_ENTRY_SOURCE)


def _componentize(folder: Path, staging: Path, output: Path) -> None:
    _require_tool()
    library = _package("inferlet")
    command = [sys.executable, "-c", _COMMAND]
    command += ["-q", "-w", _WORLD]
    for part in ("wit", "wit/ext", "world"):
        command += ["-d", str(library / part)]
    command += ["componentize", "-p", str(staging), "-p", str(folder), "-o", str(output), _ENTRY]
    # The tool would add the site-packages of whatever Python it finds: it gets an empty one.
    (staging / "venv" / "lib" / "site-packages").mkdir(parents=True)
    done = subprocess.run(
        command,
        cwd=staging,
        env={**os.environ, "VIRTUAL_ENV": str(staging / "venv")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ProgramError(_reason(done.stdout + done.stderr, folder))


def _reason(report: str, folder: Path) -> str:
    """The tool's report as one line of the inferlet's source and what went wrong in it."""
    stub = _TRAPPING_STUB.search(report)
    if stub is not None:
        return (
            f"{folder / f'{APP}.py'}: a host call ({stub[1]}) while the module is imported; "
            "only `main` and what it calls may talk to the host"
        )
    cause = _CAUSE.search(report)
    if cause is None:
        return f"{folder}: componentize-py failed:\n{report.strip()}"
    text = textwrap.dedent(cause[1]).strip()
    frames = list(_FRAME.finditer(report))
    if not frames:
        return f"{folder / f'{APP}.py'}: {text}"
    path, line, source = frames[-1].groups()
    return f"{folder / path}:{line}: {text}: {source.strip()}"
