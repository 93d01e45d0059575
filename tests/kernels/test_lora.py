"""The products of LoRA adapters: against torch, from the arrays that a bank of adapters holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("llvmlite", reason="the extra [cpu] is not installed")

from pie.kernels.cpu.target import detect

if detect() is None:
    pytest.skip("there are no packed kernels for this machine", allow_module_level=True)

from pie.batch import Batch, Floats, InitializeAdapter, UploadAdapter
from pie.kernels.cpu.lora import lora_add, lora_down
from pie.model.adapter import AdapterBank, LoraSupport
from pie.model.config import LlamaConfig
from pie.model.llama import adapt_rows
from tests.model.adapters import adapted, lora_bytes, random_lora
from tests.model.support import Pass
from tests.model.tiny import Tiny

TINY = Tiny(layers=3)
CONFIG = LlamaConfig(
    layers=TINY.layers,
    hidden=TINY.hidden,
    heads=TINY.heads,
    kv_heads=TINY.kv_heads,
    head_dim=TINY.head_dim,
    ffn=TINY.ffn,
    vocabulary=TINY.vocabulary,
    context_length=TINY.context,
    norm_epsilon=TINY.epsilon,
    tied=False,
)
OUTPUTS = (CONFIG.heads + 2 * CONFIG.kv_heads) * CONFIG.head_dim


def guarded(count: int) -> Floats:
    """Room for `count` values and some that must not be written."""
    return np.full(count + 16, 7.0, np.float32)


def down(x: Floats, matrix: Floats) -> Floats:
    out = guarded(len(matrix))
    lora_down(x.ctypes.data, matrix.ctypes.data, *matrix.shape, out.ctypes.data)
    assert (out[len(matrix) :] == 7.0).all()
    return out[: len(matrix)]


def add(t: Floats, up: Floats, first: int, out: Floats) -> Floats:
    wide = guarded(len(out))
    wide[: len(out)] = out
    lora_add(t.ctypes.data, up.ctypes.data, len(t), first, len(out), wide.ctypes.data)
    assert (wide[len(out) :] == 7.0).all()
    return wide[: len(out)]


@pytest.mark.parametrize("hidden", [1, 7, 8, 9, 48, 576, 1003])
@pytest.mark.parametrize("ranks", [1, 3, 4, 6, 24, 65])
def test_the_products_are_those_of_numpy(hidden: int, ranks: int) -> None:
    random = np.random.default_rng(hidden * 100 + ranks)
    x, matrix = (random.standard_normal(s).astype(np.float32) for s in (hidden, (ranks, hidden)))
    t = down(x, matrix)
    exact = matrix.astype(np.float64) @ x.astype(np.float64)
    bound = 1e-6 * (np.abs(matrix).astype(np.float64) @ np.abs(x)) + 1e-12
    assert (np.abs(t - exact) <= bound).all()
    up, before = (random.standard_normal(s).astype(np.float32) for s in ((50, ranks), 50))
    exact = before + up.astype(np.float64) @ t.astype(np.float64)
    bound = 1e-6 * (np.abs(before) + np.abs(up).astype(np.float64) @ np.abs(t))
    assert (np.abs(add(t, up, 0, before) - exact) <= bound).all()


def test_outputs_may_be_cut_anywhere() -> None:
    """Threads take a head each; whatever they take, an output has the same bits."""
    random = np.random.default_rng(1)
    t, up, before = (
        random.standard_normal(shape).astype(np.float32) for shape in (13, (60, 13), 60)
    )
    whole = add(t, up, 0, before)
    for size in (1, 2, 3, 5, 8, 32):
        parts = [add(t, up, i, before[i : i + size]) for i in range(0, 60 - size + 1, size)]
        assert (np.concatenate(parts) == whole[: len(parts) * size]).all()


def batch_of_three_slots() -> Batch:
    """Slot 0 uploaded, slot 1 perturbed by two seeds and by none, slot 2 empty."""
    lengths, slots = (2, 3, 1, 4, 1, 2, 2), (0, 1, -1, 1, 0, 2, 1)
    seeds = (None, 5, None, 6, None, None, None)
    passes = [
        Pass(tokens=[1] * rows, pages=range(i, i + 1), length=rows)
        for i, rows in enumerate(lengths)
    ]
    return adapted(passes, slots, seeds)


def filled_bank() -> AdapterBank:
    bank = AdapterBank(CONFIG, LoraSupport(CONFIG, 4, 16))
    ranks = {"q": 4, "k": 1, "v": 3}
    bank.adapt(UploadAdapter(0, lora_bytes(random_lora(TINY, 3, ranks, layers=[0, 2]))))
    bank.adapt(InitializeAdapter(1, 5, 8.0, 4, 0.5, 0.1))
    return bank


def test_kernels_add_to_a_row_what_torch_adds() -> None:
    """From the very memory of the bank's arrays, for every use of a mixed batch."""
    bank, batch = filled_bank(), batch_of_three_slots()
    uses = bank.uses(batch)
    rows = [use.rows.tolist() for use in uses]
    assert rows == [[0, 1, 10], [2, 3, 4], [6, 7, 8, 9], [13, 14]]
    random = np.random.default_rng(9)
    changed = np.zeros((len(uses), CONFIG.layers), bool)
    for number, use in enumerate(uses):
        for layer, delta in enumerate(use.deltas):
            x = random.standard_normal((16, CONFIG.hidden)).astype(np.float32)
            qkv = random.standard_normal((16, OUTPUTS)).astype(np.float32)
            expected, found = torch.from_numpy(qkv.copy()), qkv.copy()
            adapt_rows(use, layer, torch.from_numpy(x), expected)
            if delta is not None:
                for row in use.rows.tolist():
                    t = down(x[row], delta.down)
                    found[row] = add(t, delta.up, 0, found[row])
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
            changed[number, layer] = not np.allclose(found, qkv, atol=1e-3)
    # Slot 0 leaves layer 1 alone; a strategy without noise starts with up factors of zero.
    assert changed.tolist() == [[True, False, True], [True] * 3, [True] * 3, [False] * 3]


def test_what_a_use_holds_can_be_read_by_kernels() -> None:
    """float32, whole rows one after the other."""
    for use in filled_bank().uses(batch_of_three_slots()):
        for delta in use.deltas:
            for matrix in () if delta is None else (delta.down, delta.up):
                assert matrix.dtype == np.float32
                assert matrix.flags.c_contiguous
