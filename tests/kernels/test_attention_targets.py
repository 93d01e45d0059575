"""Attention for other processors: portable vectors run here, real code is looked at."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tests.kernels.support")

import llvmlite.binding as llvm
from llvmlite import ir

from pie.kernels.cpu import attention_emit, partials, weights
from pie.kernels.cpu.emit import F32, I64, Emit
from pie.kernels.cpu.lines import Bfloats, Bytes
from pie.kernels.cpu.target import detect, named

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


HOST = detect()
assert HOST is not None
OTHER = "portable8" if HOST.bf16 else "portable16"


@pytest.mark.parametrize("target", [OTHER])
def test_portable_vectors_pass_the_same_tests(target: str) -> None:
    files = [str(HERE / "test_attention.py"), str(HERE / "test_rope.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        env={**os.environ, "PIE_CPU_TARGET": target},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"\d\d passed", done.stdout)
    assert "skipped" not in done.stdout


def assembly(emit: Callable[..., Any], target: str, triple: str, cpu: str, kinds: list[Any]) -> str:
    """The machine code of what `emit` emits."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = ir.Module()
    module.triple = triple
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), "f")
    builder = ir.IRBuilder(function.append_basic_block())
    emit(Emit(builder, named(target)), *function.args)
    builder.ret_void()
    features = ",".join(f"+{name}" for name in sorted(named(target).needs))
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu, features, opt=3)
    parsed = llvm.parse_assembly(str(module))
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(parsed, passes)
    return str(machine.emit_assembly(parsed))


WHOLE = [I64] * 5


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("emit", [attention_emit.score, attention_emit.mix])
def test_bfloat_pairs_are_multiplied_by_an_instruction(
    emit: Callable[..., Callable[..., None]], count: int
) -> None:
    code = assembly(
        emit(count, Bfloats), "avx512-bf16", "x86_64-unknown-linux-gnu", "znver4", WHOLE
    )
    assert code.count("vdpbf16ps") >= 8 * count
    assert not re.search(r"zmm\d+, -?\d*\(%rsp\)", code)  # nothing is spilled


@pytest.mark.parametrize(
    ("target", "triple", "cpu", "product", "spill"),
    [
        ("avx2", "x86_64-unknown-linux-gnu", "znver3", "vfmadd", r"ymm\d+, -?\d*\(%rsp\)"),
        ("neon-dot", "aarch64-unknown-linux-gnu", "neoverse-n1", "fmla", r"str\tq\d+, \[sp"),
    ],
)
@pytest.mark.parametrize("emit", [attention_emit.score, attention_emit.mix])
def test_four_queries_fit_the_registers(
    emit: Callable[..., Callable[..., None]],
    target: str,
    triple: str,
    cpu: str,
    product: str,
    spill: str,
) -> None:
    code = assembly(emit(4, Bfloats), target, triple, cpu, WHOLE)
    assert code.count(product) >= 128
    assert not re.search(spill, code)


@pytest.mark.parametrize("emit", [attention_emit.score, attention_emit.mix])
def test_bytes_are_multiplied_in_pairs(emit: Callable[..., Callable[..., None]]) -> None:
    triple = "x86_64-unknown-linux-gnu"
    code = assembly(emit(4, Bytes), "avx2", triple, "znver3", WHOLE)
    assert code.count("vpmaddwd") >= 16
    assert not re.search(r"ymm\d+, -?\d*\(%rsp\)", code)
    assert "vpdpwssd" in assembly(emit(4, Bytes), "avx512-bf16", triple, "znver4", WHOLE)


@pytest.mark.parametrize(
    ("emit", "kinds"),
    [
        (weights.weigh, [I64] * 4),
        (weights.weigh_scaled, [I64] * 5),
        (weights.settle, [I64] * 2),
        (weights.clear, [I64] * 2),
        (weights.hide, [I64] * 3),
        (weights.cap, [I64, I64, F32]),
        (partials.merge, [I64] * 3),
        (partials.finish, [I64] * 3),
    ],
)
def test_the_rest_needs_no_function_of_a_library(emit: Callable[..., None], kinds: Any) -> None:
    for target, triple, cpu in (
        ("avx512-bf16", "x86_64-unknown-linux-gnu", "znver4"),
        ("neon-dot", "aarch64-unknown-linux-gnu", "neoverse-n1"),
    ):
        code = assembly(emit, target, triple, cpu, kinds)
        assert not re.search(r"\t(call|callq|bl)\t", code)
