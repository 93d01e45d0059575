"""The guest library's two backends do the same: in a component, and natively."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie.testing import (
    HashModel,
    LinearTiming,
    SimulatedGpu,
    load_main,
    outcome_of,
    run_native,
    simulated_engine,
)

from .loading import component_of

PROBE = Path(__file__).parent / "probe"
EXPECTED = {
    "sleep": ("", "a\nb\nc\n"),
    "cancel": ("the first failure", ""),
    "talk": ("heard", ""),
    "breaks": ("KeyError: 'gone'", ""),
    "template": (
        "the model's chat template is not valid Jinja: Encountered unknown tag 'bad'.",
        "",
    ),
}


@pytest.mark.parametrize("case", [*EXPECTED, "fork", "masks"])
async def test_natively(case: str) -> None:
    async with simulated_engine() as engine:
        done = await run_native(engine, load_main(PROBE), [case])
        assert (await engine.stats())["simulated"].queued == 0
    if case in EXPECTED:
        assert (done.event.text, done.stdout) == EXPECTED[case]
    else:
        assert done.text


@pytest.mark.slow
async def test_a_component_gets_what_it_gets_step_by_step_whoever_ran_ahead() -> None:
    """Contract X10, S3: also when it leaves a stream and draws again in one go, on as many pages
    as single steps need.
    """
    gpu = SimulatedGpu(HashModel(pages=24), LinearTiming(0.25, 0.0))
    async with component_of(PROBE) as program, simulated_engine(gpu) as engine:
        texts = [
            (await outcome_of(await engine.launch(program, [case], seed=3))).text
            for case in ("ahead", "stepwise")
        ]
    assert texts[0] == texts[1] != ""


@pytest.mark.slow
async def test_a_component_does_what_native_code_does() -> None:
    async with component_of(PROBE) as program, simulated_engine() as engine:
        for case in [*EXPECTED, "fork", "masks", "ahead"]:
            component = await outcome_of(await engine.launch(program, [case], seed=5))
            native = await run_native(engine, load_main(PROBE), [case], seed=5)
            assert (component.event, component.messages, component.stdout) == (
                native.event,
                native.messages,
                native.stdout,
            )
            assert bool(component.stderr) == bool(native.stderr) == (case == "breaks")
