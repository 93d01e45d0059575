"""`pie doctor`: what this machine and this installation can do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from pie import __version__
from pie.config import MIB
from pie.errors import PieError

from .home import DEFAULT_MODEL, Home

if TYPE_CHECKING:
    from pie.guest.instance import Instance

DISTRIBUTION = "pie-trio"
PYTHONS = ((3, 11), (3, 14))
"""The oldest that works, and the first that does not: the guest host is tied to their C API."""


class Verdict(StrEnum):
    FINE = "ok"
    NOTE = "--"
    """Something optional is missing or could not be looked at."""
    BROKEN = "!!"


@attrs.frozen
class Finding:
    """One line of the report."""

    verdict: Verdict
    subject: str
    text: str


Check: TypeAlias = Callable[[Home], Iterator[Finding]]


def examine(home: Home) -> int:
    """Print every finding; 1 if something needed is broken."""
    if _broken(PREREQUISITES, home):
        return 1
    return int(_broken(CHECKS, home))


def _broken(checks: Sequence[Check], home: Home) -> bool:
    broken = False
    for check in checks:
        for finding in check(home):
            broken = broken or finding.verdict is Verdict.BROKEN
            sys.stdout.write(f"{finding.verdict}  {finding.subject:<9}  {finding.text}\n")
        sys.stdout.flush()
    return broken


def _python(home: Home) -> Iterator[Finding]:
    first, end = PYTHONS
    version = platform.python_version()
    if not first <= sys.version_info[:2] < end:
        wanted = f">={first[0]}.{first[1]},<{end[0]}.{end[1]}"
        yield Finding(Verdict.BROKEN, "python", f"{version}, but pie needs {wanted}")
        return
    what = platform.python_implementation()
    text = f"{what} {version}, {platform.system()} {platform.machine()}"
    yield Finding(Verdict.FINE, "python", text)


def _packages(home: Home) -> Iterator[Finding]:
    """Every package that Pie requires is there, and those with an exact version have it."""
    versions, wrong = [f"pie {__version__}"], []
    for requirement in importlib.metadata.requires(DISTRIBUTION) or []:
        if ";" in requirement:
            continue  # of an extra
        name, exact = _name_and_exact_version(requirement)
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        versions.append(f"{name} {version}")
        if exact and version != exact:
            wrong.append(f"{name} is {version} and must be {exact}")
    if wrong:
        yield Finding(Verdict.BROKEN, "packages", "; ".join(wrong))
    else:
        yield Finding(Verdict.FINE, "packages", ", ".join(versions))


def _name_and_exact_version(requirement: str) -> tuple[str, str]:
    found = re.match(r"([\w.-]+)(?:==([\w.]+))?", requirement)
    assert found is not None, requirement
    return found[1], found[2] or ""


def _guests(home: Home) -> Iterator[Finding]:
    import trio

    from pie.guest.selftest import selftest

    for tried in trio.run(selftest, _instance_without_engine):
        failed = Verdict.BROKEN if tried.needed else Verdict.NOTE
        verdict = Verdict.FINE if tried.passed else failed
        yield Finding(verdict, "guests", f"{tried.name}: {tried.detail}")


def _instance_without_engine() -> Instance:
    """What the guest of the self-test runs as: it calls nobody."""
    import trio

    from pie.activity import Mover
    from pie.config import Limits
    from pie.guest.instance import Instance
    from pie.ids import InstanceId
    from pie.offload import inline
    from pie.outbox import Outbox

    nobody, mailbox = trio.open_memory_channel[Any](0)
    mailbox.close()
    return Instance(
        id=InstanceId(0),
        uuid="selftest",
        user="local",
        seed=0,
        arguments=(),
        models={},
        broker=nobody,
        store=nobody,
        supervisor=nobody,
        outbox=Outbox(),
        mover=Mover([]),
        limits=Limits(),
        offload=inline,
    )


def _torch(home: Home) -> Iterator[Finding]:
    subject = "torch"
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library it needs cannot be loaded
        yield Finding(Verdict.BROKEN, subject, f"cannot be imported: {error}")
        return
    text = f"{torch.__version__}, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        text += f", CUDA: {torch.cuda.get_device_name()} (not used yet)"
    yield Finding(Verdict.FINE, subject, text)
    yield _float32(home)


def _float32(home: Home) -> Finding:
    """Whether the reference keeps its promise here, tried on the default model."""
    from pie.model import load
    from pie.model.runner import TorchRunner
    from pie.model.store import resolve

    subject = "float32"
    try:
        path = resolve(DEFAULT_MODEL, home.path)
    except PieError:
        text = f"not tried: it takes a model (pie model pull {DEFAULT_MODEL})"
        return Finding(Verdict.NOTE, subject, text)
    try:
        runner = load(path, dtype="float32", pages=1)
    except PieError as error:
        return Finding(Verdict.BROKEN, subject, str(error))
    assert isinstance(runner, TorchRunner)
    if runner.invariant:
        return Finding(Verdict.FINE, subject, "a row has the same bits whatever shares its batch")
    text = "results are right, but their last bits depend on what shares a batch"
    return Finding(Verdict.NOTE, subject, text)


def _cpu(home: Home) -> Iterator[Finding]:
    from . import cpu_path

    if importlib.util.find_spec("llvmlite") is None:
        text = f"{cpu_path.SLOWLY}: llvmlite is missing: pip install '{DISTRIBUTION}[cpu]'"
        yield Finding(Verdict.NOTE, "cpu", text)
        return
    try:
        taken, text = cpu_path.choice()
        yield Finding(Verdict.FINE if taken else Verdict.NOTE, "cpu", text)
        yield Finding(Verdict.FINE, "cpu", cpu_path.machine_code())
    except (PieError, ImportError, OSError) as error:
        yield Finding(Verdict.BROKEN, "cpu", str(error))


def _building(home: Home) -> Iterator[Finding]:
    if importlib.util.find_spec("componentize_py") is None:
        text = f"componentize-py is missing: pip install '{DISTRIBUTION}[build]'"
        yield Finding(Verdict.NOTE, "pie build", text)
        return
    version = importlib.metadata.version("componentize-py")
    yield Finding(Verdict.FINE, "pie build", f"componentize-py {version}")


def _library(home: Home) -> Iterator[Finding]:
    from .targets import LIBRARY, library_names

    names = library_names()
    if not names:
        text = f"none: there is no {LIBRARY}; `pie run` takes folders and components"
        yield Finding(Verdict.NOTE, "inferlets", text)
    else:
        yield Finding(Verdict.FINE, "inferlets", f"{len(names)} in {LIBRARY}: {', '.join(names)}")


def _store(home: Home) -> Iterator[Finding]:
    parts = [
        f"{part} {_size(home, part) / MIB:.0f} MiB"
        for part in ("models", "cache/built", "cache/compiled")
    ]
    yield Finding(Verdict.FINE, "PIE_HOME", f"{home.path}: {', '.join(parts)}")


def _size(home: Home, part: str) -> int:
    return sum(path.stat().st_size for path in (home.path / part).rglob("*") if path.is_file())


PREREQUISITES: tuple[Check, ...] = (_python, _packages)
"""The other checks could not even be imported without them."""
CHECKS: tuple[Check, ...] = (_guests, _torch, _cpu, _building, _library, _store)
