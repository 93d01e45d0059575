"""Other processors' products with their byte products written out, so that they run here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tests.kernels.support")

import llvmlite.binding as llvm

from pie.kernels.cpu.dot import lower, upper
from pie.kernels.cpu.emit import Emit, Value, const
from pie.kernels.cpu.layout import BLOCK, Kind, Packed, blocks_of, unpack
from pie.kernels.cpu.library import Native, host_machine, module_of, optimised
from pie.kernels.cpu.matmul import EMITTERS
from pie.kernels.cpu.target import named
from tests.kernels.support import (
    INTEGER_KINDS,
    Floats,
    aligned,
    product,
    random_matrix,
    rows_for,
)

CALL = Emit.call
ENGINES: list[Any] = []


def _byte(e: Emit, words: Value, index: int, signed: bool) -> Value:
    kind = words.type
    high = e.b.shl(words, const(kind, 24 - 8 * index))
    shift = e.b.ashr if signed else e.b.lshr
    return shift(high, const(kind, 24))


def _emulated(e: Emit, name: str, result: Any, *arguments: Value, **options: Any) -> Value:
    """What the manuals say of the instructions; all else as it was."""
    unsigned = name.startswith("llvm.x86.avx512.vpdpbusd")
    if unsigned or name.startswith("llvm.aarch64.neon.sdot"):
        total, x, y = (e.b.bitcast(argument, arguments[0].type) for argument in arguments)
        for index in range(4):
            weights = _byte(e, x, index, signed=not unsigned)
            total = e.b.add(total, e.b.mul(weights, _byte(e, y, index, signed=True)))
        return total
    if name.startswith("llvm.x86.avx512bf16.dpbf16ps"):
        total, x, y = arguments[0], *(e.b.bitcast(argument, e.I) for argument in arguments[1:])
        return e.fma(lower(e, x), lower(e, y), e.fma(upper(e, x), upper(e, y), total))
    assert not name.startswith(("llvm.x86", "llvm.aarch64"))
    return CALL(e, name, result, *arguments, **options)


@pytest.fixture(scope="module", params=["avx512-bf16", "avx2-vnni", "neon-dot"])
def gemm(request: pytest.FixtureRequest) -> tuple[str, Native]:
    """The target's name and its products."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Emit, "call", _emulated)
        emitters = {"emulated_gemm": EMITTERS["gemm"]}
        module = module_of(named(request.param), emitters, llvm.get_default_triple())
    machine = host_machine()
    engine = llvm.create_mcjit_compiler(optimised(module, machine), machine)
    engine.finalize_object()
    ENGINES.append(engine)
    address = engine.get_function_address("emulated_gemm")
    return request.param, Native("emulated_gemm", EMITTERS["gemm"], lambda: address)


def _multiply(gemm: Native, matrix: Packed, data: np.ndarray[Any, Any]) -> Floats:
    blocks = blocks_of(matrix.outputs)
    out = np.zeros((len(data), blocks * BLOCK), np.float32)
    weights, rows, to = (array.ctypes.data for array in (matrix.data, data, out))
    counts = (blocks, rows, matrix.inputs, len(data))
    gemm(matrix.kind, weights, *counts, to, out.strides[0], 0)
    return out[:, : matrix.outputs]


@pytest.mark.parametrize("kind", INTEGER_KINDS)
def test_integer_kinds_have_the_same_bits_everywhere(gemm: tuple[str, Native], kind: Kind) -> None:
    rng = np.random.default_rng(29)
    matrix = random_matrix(kind, 37, 608, rng)
    for count in (1, 2, 3, 4, 7, 8, 9, 33):
        rows = rows_for(matrix, count, rng)
        found = _multiply(gemm[1], matrix, rows.data)
        assert found.tobytes() == product(matrix, rows).tobytes(), count


def test_bfloat16_products_are_right_and_of_the_row_alone(gemm: tuple[str, Native]) -> None:
    rng = np.random.default_rng(31)
    matrix = random_matrix(Kind.BF16, 37, 608, rng)
    # Values that bfloat16 holds: both forms of rows hold them.
    x = rng.integers(-128, 129, (19, 608)).astype(np.float32)
    pairs = (x.view(np.uint32) >> 16).astype(np.uint16)
    bits = pairs if named(gemm[0]).bf16 else x
    width = -(-608 * bits.itemsize // 64) * 64
    data = aligned(np.zeros((19, width), np.uint8)).reshape(19, width)
    data[:, : 608 * bits.itemsize] = bits.view(np.uint8)
    found = _multiply(gemm[1], matrix, data)
    exact = x.astype(np.float64) @ unpack(matrix).astype(np.float64).T
    assert np.abs(found - exact).max() <= 3e-6 * np.abs(exact).max()
    for first in range(19):
        alone = _multiply(gemm[1], matrix, data[first : first + 1])
        assert alone.tobytes() == found[first : first + 1].tobytes()
