"""Rotary factors, norms of heads, and what is written to a page."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tests.kernels.support")

from pie.kernels.cpu import pages, rope
from pie.kernels.cpu.target import detect
from tests.kernels.attention_case import Floats, address, aligned, to_bfloat


def factors_of(position: int, half: int, amplitude: float = 1.0, theta: float = 10000.0) -> Floats:
    frequencies = (theta ** -(np.arange(half) / half)).astype(np.float32)
    out = np.zeros(2 * half, dtype=np.float32)
    rope.rope_factors(position, address(frequencies), half, amplitude, address(out))
    return out


@pytest.mark.parametrize("position", [0, 1, 77, 8191, 1_000_003, 2**31 - 1, -5])
def test_factors_are_right_at_any_position(position: int) -> None:
    frequencies = (10000.0 ** -(np.arange(32) / 32)).astype(np.float32)
    angle = (np.float32(position) * frequencies).astype(np.float64)
    expected = 1.5 * np.concatenate([np.cos(angle), np.sin(angle)])
    np.testing.assert_allclose(factors_of(position, 32, 1.5), expected, rtol=0, atol=1.2e-7)


def rotated(x: Floats, factors: Floats) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    half = len(x) // 2
    cosine, sine = factors[:half].astype(np.float64), factors[half:].astype(np.float64)
    first, second = x[:half].astype(np.float64), x[half:].astype(np.float64)
    parts = [first * cosine - second * sine, second * cosine + first * sine]
    return np.concatenate(parts)


@pytest.mark.parametrize("dim", [16, 48, 64, 256])
@pytest.mark.parametrize("turned", [False, True])
def test_query(dim: int, turned: bool) -> None:
    x = np.random.default_rng(dim).standard_normal(dim, dtype=np.float32)
    factors = factors_of(321, dim // 2)
    out = aligned(rope.query_bytes(dim))
    rope.store_query(address(x), address(factors) if turned else 0, address(out), dim, 0.25)
    expected = (rotated(x, factors) if turned else x) * 0.25 * np.log2(np.e)
    target = detect()
    assert target is not None
    if target.bf16:
        upper = out.view(np.uint16)[:dim].astype(np.uint32) << 16
        np.testing.assert_allclose(upper.view(np.float32), expected, rtol=2**-8, atol=1e-6)
    else:
        np.testing.assert_allclose(out.view(np.float32), expected, rtol=1e-5, atol=1e-6)


def read_head(head: np.ndarray[tuple[int], np.dtype[np.uint8]], dim: int) -> tuple[Floats, Floats]:
    """K and V [16 tokens, dim] of a page's head."""
    bits = head.view(np.uint16).astype(np.uint32) << 16
    keys = bits[: 16 * dim].reshape(dim // 2, 16, 2).transpose(1, 0, 2).reshape(16, dim)
    values = bits[16 * dim :].reshape(8, dim, 2).transpose(0, 2, 1).reshape(16, dim)
    return keys.copy().view(np.float32), values.copy().view(np.float32)


@pytest.mark.parametrize("dim", [16, 80, 256])
def test_a_token_is_written_to_its_slot_only(dim: int) -> None:
    random = np.random.default_rng(dim)
    head = aligned(pages.head_bytes(dim))
    head[:] = 0
    all_keys, all_values = np.zeros((2, 16, dim), dtype=np.float32)
    for slot in (3, 0, 14, 15, 3):
        key, value = random.standard_normal((2, dim), dtype=np.float32)
        factors = factors_of(slot, dim // 2)
        turn = slot % 2 == 1
        where = address(head)
        pages.store_key(address(key), address(factors) if turn else 0, where, slot, dim)
        pages.store_value(address(value), where, slot, dim)
        all_keys[slot] = rotated(key, factors) if turn else key
        all_values[slot] = value
    keys, values = read_head(head, dim)
    np.testing.assert_allclose(keys, all_keys, rtol=2**-8, atol=1e-6)
    np.testing.assert_array_equal(keys[[0, 14]], to_bfloat(all_keys)[[0, 14]])
    np.testing.assert_array_equal(values, to_bfloat(all_values))


def test_what_is_written_is_finite() -> None:
    head = aligned(pages.head_bytes(16))
    head[:] = 0
    odd = [np.nan, -np.nan, np.inf, -np.inf, 3.4028235e38, -3.4028235e38, -0.0, 1e-45]
    x = np.array(odd * 2, dtype=np.float32)
    pages.store_key(address(x), 0, address(head), 1, 16)
    pages.store_value(address(x), address(head), 2, 16)
    largest = np.uint32(0x7F7F0000).view(np.float32)
    expected = np.array([0, 0, largest, -largest, largest, -largest, 0, 0], dtype=np.float32)
    keys, values = read_head(head, 16)
    np.testing.assert_array_equal(keys[1, :8], expected)
    np.testing.assert_array_equal(values[2, 8:], expected)


def test_head_norm() -> None:
    x, weight = np.random.default_rng(1).standard_normal((2, 80), dtype=np.float32)
    exact = x.astype(np.float64)
    expected = exact / np.sqrt((exact**2).mean() + 1e-3) * weight
    rope.head_norm(address(x), address(weight), address(x), 80, 1e-3)
    np.testing.assert_allclose(x, expected, rtol=2e-6)
