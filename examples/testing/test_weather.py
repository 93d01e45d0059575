"""Tests of the agent in `weather/`, on a simulated H100 whose model follows a script.

    pytest examples/testing

They need neither a GPU nor a model, and no real time: five seconds of the H100 are over at once.
"""

from __future__ import annotations

from functools import partial

import pytest
import trio

from pie.ids import EventCode
from pie.testing import H100, LLAMA_3_8B, LostBatch, RunInferlet, ScriptedModel, SimulatedGpu

SCRIPT = r"""
(?s)weather in (?P<city>\w+).*RESULT (?P<sky>[\w ]+) => It is {sky} in {city}.
weather in (\w+) => CALL weather {1}
stubborn         => CALL weather again
RESULT           => CALL weather again
=> I only know about the weather.
"""


@pytest.fixture
def pie_gpu() -> SimulatedGpu:
    """What all tests of this file run on."""
    return SimulatedGpu.of(H100, LLAMA_3_8B, make_runner=partial(ScriptedModel, SCRIPT))


async def test_it_answers_at_once_what_needs_no_tool(run_inferlet: RunInferlet) -> None:
    outcome = await run_inferlet("weather", "Who are you?")
    assert outcome.text == "I only know about the weather."


async def test_it_looks_up_the_weather(run_inferlet: RunInferlet) -> None:
    outcome = await run_inferlet("weather", "What is the weather in Oslo?", sends=["rainy"])
    assert outcome.messages == ("Oslo",)
    assert outcome.text == "It is rainy in Oslo."


async def test_it_gives_up_on_a_model_that_does_not_answer(run_inferlet: RunInferlet) -> None:
    outcome = await run_inferlet("weather", "Be stubborn", sends=["rainy", "dry", "foggy"])
    assert outcome.event.text == "the model asked 3 times and did not answer"


async def test_an_answer_takes_less_than_a_second(run_inferlet: RunInferlet) -> None:
    """On an H100: about 6 ms a token, most of which goes into reading the weights."""
    began = trio.current_time()
    outcome = await run_inferlet("weather", "What is the weather in Rome?", sends=["sunny"])
    seconds = trio.current_time() - began
    assert outcome.text == "It is sunny in Rome."
    assert 0.1 < seconds < 1.0


async def test_a_failing_gpu_is_reported(run_inferlet: RunInferlet, pie_gpu: SimulatedGpu) -> None:
    """And the next user gets an answer."""
    pie_gpu.fail_next(LostBatch("uncorrectable memory error"))
    outcome = await run_inferlet("weather", "What is the weather in Rome?")
    assert outcome.event.code is EventCode.EXCEPTION
    assert "uncorrectable memory error" in outcome.event.text

    assert (await run_inferlet("weather", "Hello")).text == "I only know about the weather."
