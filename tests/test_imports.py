"""Imports point one way, and the light parts stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pie

ROOT = Path(pie.__file__).parent
LAYERS = [
    "cli pytest_plugin",
    "server",
    "testing",
    "programs build",
    "engine trace guarded devices",
    "guest actors model",
    "kernels",
    "messages philox starting",
    "multistep",
    "config activity batch offload outbox",
    "mailbox",
    "signals",
    "errors ids probes collector pruning folders",
]
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row.split()}


def _part(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def _imported(node: ast.AST, path: Path) -> Iterator[str]:
    """Dotted names below `pie` that an import statement refers to."""
    if isinstance(node, ast.Import):
        yield from (a.name[4:] for a in node.names if a.name.startswith("pie."))
    elif isinstance(node, ast.ImportFrom):
        if node.level:
            package = path.relative_to(ROOT).parent.parts
            base = package[: len(package) - node.level + 1]
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
        elif node.module and (node.module == "pie" or node.module.startswith("pie.")):
            module = node.module[4:]
        else:
            return
        names = [module] if module else [alias.name for alias in node.names]
        yield from (name for name in names if name.split(".")[0] in RANK or module)


def imports_of(root: Path) -> Iterator[tuple[str, str, Path]]:
    """(importing part, imported part, file) for every import inside the package."""
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for name in _imported(node, path):
                yield _part(path), name.split(".")[0], path


def test_imports_point_down() -> None:
    """A layer may import lower layers only; neighbours on a row are strangers."""
    wrong = [
        f"{path.relative_to(ROOT)} imports pie.{other}"
        for part, other, path in imports_of(ROOT)
        if part not in ("__init__", "__main__") and part != other and RANK[other] <= RANK[part]
    ]

    assert wrong == []


def test_every_part_has_a_layer() -> None:
    parts = {_part(path) for path in ROOT.rglob("*.py")} - {"__init__", "__main__"}

    assert parts <= set(RANK)


def test_actors_need_neither_torch_nor_wasmtime() -> None:
    """The scheduler's tests, and whoever embeds it, pay for neither."""
    heavy = "{'torch', 'cupy', 'wasmtime', 'quart', 'tokenizers'}"
    code = (
        f"import pie.actors.batching, pie.actors.supervisor, sys; print({heavy} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


def test_model_files_are_read_without_torch() -> None:
    """It takes longer to import than a small model takes to load, as do the others."""
    code = "import pie.model.loaders.gguf, pie.model.loaders.safetensors, sys; print({modules})"
    code = code.format(modules="{'torch', 'llvmlite', 'gguf'} & set(sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


def test_pure_cores_know_neither_trio_nor_torch() -> None:
    """They are plain bookkeeping, so that they can be hammered without a loop."""
    cores = (
        "allowance",
        "dispatch",
        "export_files",
        "audit",
        "binding",
        "exports",
        "failures",
        "fairness",
        "moves",
        "packing",
        "pages",
        "passes",
        "planner",
        "pools",
        "prediction",
        "queue",
        "quotas",
        "requests",
        "room",
        "victims",
    )
    for core in cores:
        tree = ast.parse((ROOT / "actors" / f"{core}.py").read_text())
        names = {
            alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names
        }
        modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}

        assert not {"trio", "torch"} & (names | modules), core


def test_what_the_server_decides_knows_neither_trio_nor_the_web() -> None:
    """Logins, quotas, settings and the protocol are plain functions of what comes in."""
    modules = ("authentication", "limits", "settings", "protocol", "uploads")
    wanted = ", ".join(f"pie.server.{module}" for module in modules)
    code = f"import {wanted}, sys; print({{'trio', 'quart', 'torch'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"
