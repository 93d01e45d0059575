"""Sampling and adapters with other shapes of vectors, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("llvmlite")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROGRAM = """
import numpy as np
from pie.kernels.cpu.sampling_ops import LANES, TARGET
from tests.kernels.rows import *

print(TARGET.name, LANES)
for vocabulary in (1, 15, 16, 17, 700):
    random = np.random.default_rng(vocabulary)
    for logits in kinds_of_rows(random, vocabulary):
        wanted = list(asks(random, vocabulary))
        for ask, expected in zip(wanted, by_the_reference(logits, wanted), strict=True):
            token = draw(logits, ask)
            assert token == expected or at_a_border(logits, ask, token), (ask, token, expected)
        for temperature, k in ((0.0, 3), (1.0, 40), (2.0, vocabulary)):
            ids, probabilities = rank(logits, temperature, k)
            reference = ranked_by_the_reference(logits, temperature, k)
            assert (ids == reference.ids).all()
            assert np.allclose(probabilities, reference.probabilities, rtol=2e-5, atol=1e-37)
"""


@pytest.mark.parametrize(
    ("target", "lanes"), [pytest.param("portable8", 8, marks=pytest.mark.long), ("portable16", 16)]
)
def test_other_vectors_give_the_same_answers(target: str, lanes: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PIE_CPU_TARGET": target, "PYTHONPATH": f"{ROOT}:{ROOT / 'sdk'}"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [target, str(lanes)]


@pytest.mark.parametrize(
    "target", [pytest.param("portable8", marks=pytest.mark.long), "portable16"]
)
def test_adapters_with_other_vectors(target: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{HERE}/test_lora.py"],
        env={**os.environ, "PIE_CPU_TARGET": target},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "45 passed" in done.stdout
    assert "skipped" not in done.stdout
