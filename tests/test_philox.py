"""The random numbers of sampling (contract S3)."""

from __future__ import annotations

import numpy as np

from pie.philox import philox4x32, uniforms


def _words(*values: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    return np.array([values], dtype=np.uint64)


def test_philox_gives_the_published_known_answers() -> None:
    """The vectors that Random123 ships for philox4x32 with ten rounds."""
    ones = 0xFFFFFFFF
    zero = philox4x32(_words(0, 0, 0, 0), _words(0, 0))
    full = philox4x32(_words(ones, ones, ones, ones), _words(ones, ones))
    pi = philox4x32(
        _words(0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), _words(0xA4093822, 0x299F31D0)
    )

    assert zero.tolist() == [[0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]]
    assert full.tolist() == [[0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]]
    assert pi.tolist() == [[0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]]


def test_a_uniform_never_depends_on_the_batch() -> None:
    draws = [(2**64 - 1, 3, 5, 7), (1, 0, 0, 0), (2, 1, 0, 4)]

    together = uniforms(draws)

    assert together.tolist() == [uniforms([draw])[0] for draw in draws]


def test_uniforms_lie_in_the_half_open_unit_interval() -> None:
    values = uniforms([(seed, 0, 0, 0) for seed in range(4096)])

    assert values.dtype == np.float32
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 0.02


def test_no_draws_give_no_numbers() -> None:
    assert uniforms([]).shape == (0,)
