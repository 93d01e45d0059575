"""Other processors' kernels: their instructions, and the same bits from the portable ones."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tests.kernels.support")

import llvmlite.binding as llvm

from pie.kernels.cpu.library import module_of, optimised
from pie.kernels.cpu.matmul import EMITTERS as MATMUL
from pie.kernels.cpu.rows import EMITTERS as ROWS
from pie.kernels.cpu.rows import Form, gate_quantise, norm_quantise, row_bytes
from pie.kernels.cpu.target import named
from tests.kernels.support import (
    INTEGER_KINDS,
    product,
    random_matrix,
    rows_for,
)


@attrs.frozen
class Machine:
    target: str
    triple: str
    cpu: str
    features: str
    instructions: tuple[str, ...]


MACHINES = (
    Machine(
        "avx512-bf16",
        "x86_64-unknown-linux-gnu",
        "znver4",
        "",
        ("vpdpbusd\t", "vdpbf16ps\t", "vcvtneps2bf16\t", "zmm8"),
    ),
    Machine(
        "avx2-vnni",
        "x86_64-unknown-linux-gnu",
        "alderlake",
        "",
        ("{vex}\tvpdpbusd\t", "vfmadd231ps\t"),
    ),
    Machine(
        "avx2",
        "x86_64-unknown-linux-gnu",
        "haswell",
        "",
        ("vpmaddubsw\t", "vpsignb\t", "vcvtph2ps\t"),
    ),
    Machine(
        "neon-dot", "aarch64-unknown-linux-gnu", "neoverse-n1", "+dotprod", ("sdot\t", "fmla\t")
    ),
)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.target)
def test_kernels_compile_to_the_instructions_of_each_target(machine: Machine) -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    made = llvm.Target.from_triple(machine.triple).create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=3
    )
    target = named(machine.target)
    code = ""
    for emitters in (MATMUL, ROWS):
        module = optimised(module_of(target, emitters, machine.triple), made)
        assert made.emit_object(module)[:4] == b"\x7fELF"
        code += made.emit_assembly(module)
    assert [i for i in machine.instructions if i not in code] == []


def _digest() -> str:
    """Of everything that integer kinds compute."""
    rng = np.random.default_rng(23)
    digest = hashlib.sha256()
    for kind in INTEGER_KINDS:
        matrix = random_matrix(kind, 37, 608, rng)
        rows = rows_for(matrix, 9, rng)
        for part in (rows.data, product(matrix, rows), normalised(rng), gated(rng)):
            digest.update(part.tobytes())
    return digest.hexdigest()


def normalised(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A row that `norm_quantise` writes."""
    x, weight = rng.standard_normal((2, 608)).astype(np.float32)
    row = np.zeros(row_bytes(Form.S8, 608), np.uint8)
    at = (x.ctypes.data, weight.ctypes.data, row.ctypes.data)
    norm_quantise(Form.S8, *at, 608, 1e-5)
    return row


def gated(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Two groups that `gate_quantise` writes."""
    gate, up = rng.standard_normal((2, 32)).astype(np.float32)
    row = np.zeros(row_bytes(Form.S8, 64), np.uint8)
    at = (gate.ctypes.data, up.ctypes.data, row.ctypes.data)
    for activation in (0, 1):
        gate_quantise(Form.S8, activation, *at, 64, activation)
    return row


@pytest.mark.parametrize("target", ["portable8", "portable16"])
def test_portable_kernels_give_the_bits_of_this_machine(target: str) -> None:
    command = [sys.executable, "-c", "import tests.kernels.test_targets as t; print(t._digest())"]
    environment = os.environ | {"PIE_CPU_TARGET": target}
    folder = Path(__file__).parents[2]
    found = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == _digest()
