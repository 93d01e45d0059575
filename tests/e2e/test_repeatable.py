"""Same seed, same bytes: alone, among 63 others, with whole and with split prompts (S3, S4)."""

from __future__ import annotations

import pytest

from tests.inferlets.loading import component_of

from .real import TOKENS, real_engine, run_all

MESSAGE = "Write a haiku about the sea, then explain it."
JOB = ([MESSAGE, "24", "0.8"], 7)


@pytest.mark.slow
async def test_a_seeded_run_gives_the_same_bytes_whatever_else_runs() -> None:
    async with component_of(TOKENS) as program:
        async with real_engine() as engine:
            (alone,) = await run_all(engine, program, [JOB])
            (again,) = await run_all(engine, program, [JOB])
        async with real_engine(step_tokens=16) as engine:
            (split,) = await run_all(engine, program, [JOB])
        async with real_engine(step_tokens=100) as engine:
            others = [([f"Tell me {i} facts.", str(4 + i % 20), "1.0"], i) for i in range(63)]
            first, *rest = await run_all(engine, program, [JOB, *others])

    assert alone.text == again.text == split.text == first.text
    assert len({outcome.text for outcome in rest}) == 63


@pytest.mark.slow
async def test_another_seed_gives_another_text() -> None:
    async with component_of(TOKENS) as program, real_engine() as engine:
        one, other = await run_all(engine, program, [JOB, (JOB[0], 8)])

    assert one.text != other.text
