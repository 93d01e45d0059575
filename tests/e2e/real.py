"""The real model in a real engine, and components to run on it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import attrs
import trio

from pie.batch import ModelRunner
from pie.config import EngineConfig, Scheduling
from pie.devices import ThreadedModel
from pie.engine import Engine, GuestProgram, open_engine
from pie.model import load
from pie.testing import Outcome, outcome_of
from tests.model_file import smollm2_path

TOKENS = Path(__file__).parent / "tokens"


@cache
def runner() -> ModelRunner:
    """One float32 runner for all tests of this folder: loading takes seconds."""
    return load(smollm2_path(), dtype="float32")


@asynccontextmanager
async def real_engine(*, step_tokens: int = 512) -> AsyncIterator[Engine]:
    config = EngineConfig(scheduling=Scheduling(step_tokens=step_tokens))
    async with open_engine([ThreadedModel(runner())], config) as engine:
        yield engine


async def run_all(
    engine: Engine, program: GuestProgram, jobs: Sequence[tuple[list[str], int | None]]
) -> list[Outcome]:
    """Run instances with these arguments and seeds all at once; their outcomes in order."""
    outcomes: dict[int, Outcome] = {}

    async def one(number: int, arguments: list[str], seed: int | None) -> None:
        outcomes[number] = await outcome_of(await engine.launch(program, arguments, seed=seed))

    async with trio.open_nursery() as nursery:
        for number, (arguments, seed) in enumerate(jobs):
            nursery.start_soon(one, number, arguments, seed)
    return [outcomes[number] for number in range(len(jobs))]


@attrs.frozen
class Answer:
    """What the `tokens` inferlet gives."""

    prompt: list[int]
    output: list[int]

    @classmethod
    def of(cls, outcome: Outcome) -> Answer:
        return cls(**json.loads(outcome.text))
