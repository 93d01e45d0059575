"""Libraries: the same functions for Python and for compiled functions."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tests.kernels.support")

from pie.kernels.cpu.jit import compiled
from pie.kernels.cpu.layout import Kind
from pie.kernels.cpu.matmul import gemm
from tests.kernels.support import Rows, product, random_matrix, rows_for


@compiled
def _many(kind: int, w: int, x: int, inputs: int, rows: int, out: int, stride: int) -> None:
    for block in range(2):
        at = w + block * (inputs // 32 * 544)
        gemm(kind, at, 1, x, inputs, rows, out + 64 * block, stride, 0)


def test_compiled_functions_call_libraries() -> None:
    rng = np.random.default_rng(1)
    matrix = random_matrix(Kind.Q8, 32, 96, rng)
    rows = rows_for(matrix, 5, rng)
    out = np.zeros((5, 32), np.float32)
    addresses = (matrix.data.ctypes.data, rows.data.ctypes.data, 96, 5, out.ctypes.data)
    _many(int(Kind.Q8), *addresses, out.strides[0])
    assert out.tobytes() == product(matrix, Rows(rows.form, 96, rows.data)).tobytes()


def test_a_wrong_number_of_arguments_is_refused() -> None:
    with pytest.raises(TypeError, match="pie_gemm takes 9"):
        gemm(1, 2, 3)
