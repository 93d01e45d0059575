"""The scripted model, through the real engine and the real guest library."""

from __future__ import annotations

from functools import partial

import inferlet
import numpy as np
import pytest
import trio

from pie.config import EngineConfig, Scheduling
from pie.errors import UsageError
from pie.testing import (
    H100,
    LLAMA_3_8B,
    ScriptedModel,
    SimulatedGpu,
    run_native,
    simulated_engine,
)
from pie.testing.script import Script
from tests.model.support import Pass, greedy, make_batch, ranked

WEATHER = r"""
# An agent that asks a tool.
(?s)weather in (?P<city>\w+).*RESULT (?P<sky>\w+) => It is {sky} in {city}.
thank you        => {"mood": "happy"}\n\{1}
weather in (\w+) => CALL weather {1}
=> I do not know.
"""


async def _say(context: inferlet.Context, text: str) -> str:
    await context.user(text)
    return (await context.generate(max_tokens=64)).text


async def agent(args: list[str]) -> str:
    """Ask; if the model calls its tool, give the result; return its answer."""
    context = await inferlet.Context.create(await inferlet.get_model())
    reply = await _say(context, " ".join(args))
    while reply.startswith("CALL weather"):
        await inferlet.send(reply)
        reply = await _say(context, "RESULT sunny")
    return reply


async def test_an_agent_calls_its_tool_and_answers_with_the_result() -> None:
    async with simulated_engine(SimulatedGpu(ScriptedModel(WEATHER))) as engine:
        outcome = await run_native(engine, agent, ["What is the weather in Paris?"])

    assert outcome.messages == ("CALL weather Paris",)
    assert outcome.text == "It is sunny in Paris."


async def test_only_the_last_message_is_answered() -> None:
    """Not the question before it, which has a rule of its own."""

    async def main(_: list[str]) -> str:
        context = await inferlet.Context.create(await inferlet.get_model())
        replies = [await _say(context, text) for text in ("weather in Rome", "eh?", "thank you")]
        return " | ".join(replies)

    async with simulated_engine(SimulatedGpu(ScriptedModel(WEATHER))) as engine:
        outcome = await run_native(engine, main)

    assert outcome.text == 'CALL weather Rome | I do not know. | {"mood": "happy"}\n{1}'


async def test_forks_answer_for_themselves_on_pages_that_they_share() -> None:
    async def main(_: list[str]) -> str:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill("We talk about the weather in ")
        other = await context.fork()
        await context.fill("Oslo")
        await other.fill("Lima")
        both = await inferlet.gather(
            context.generate(max_tokens=40, sampler=inferlet.Multinomial(2.0)),
            other.generate(max_tokens=40),
        )
        return " | ".join(each.text for each in both)

    async with simulated_engine(SimulatedGpu(ScriptedModel(WEATHER))) as engine:
        outcome = await run_native(engine, main)

    assert outcome.text == "CALL weather Oslo | CALL weather Lima"


async def test_a_reply_that_was_cut_goes_on_and_one_that_was_changed_is_a_new_prompt() -> None:
    async def main(_: list[str]) -> str:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill("the weather in Rome")
        first = (await context.generate(max_tokens=4)).text
        rest = (await context.generate(max_tokens=40)).text
        await context.fill(" thank you")
        return " | ".join([first, rest, (await context.generate(max_tokens=40)).text])

    async with simulated_engine(SimulatedGpu(ScriptedModel(WEATHER))) as engine:
        outcome = await run_native(engine, main)

    assert outcome.text == 'CALL |  weather Rome | {"mood": "happy"}\n{1}'


async def test_answers_survive_chunks_and_moves_to_host_memory() -> None:
    """Two agents in room for little more than one, prompts in chunks of 8."""
    gpu = SimulatedGpu(ScriptedModel(WEATHER, pages=24, page_size=8))
    config = EngineConfig(scheduling=Scheduling(step_tokens=8, host_pages=64))
    async with simulated_engine(gpu, config=config) as engine:
        texts: list[str] = []

        async def both(args: list[str]) -> str:
            texts.append(await agent(args))
            return texts[-1]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_native, engine, both, ["weather in Paris"])
            nursery.start_soon(run_native, engine, both, ["weather in Lima"])
        moved = (await engine.stats())["scripted"].moved_out

    assert sorted(texts) == ["It is sunny in Lima.", "It is sunny in Paris."]
    assert moved > 0


async def test_a_machine_may_follow_a_script() -> None:
    gpu = SimulatedGpu.of(H100, LLAMA_3_8B, make_runner=partial(ScriptedModel, WEATHER))
    async with simulated_engine(gpu) as engine:
        assert (await run_native(engine, agent, ["weather in Bonn"])).text == "It is sunny in Bonn."


def _told(model: ScriptedModel, text: str, **masks: object) -> int:
    tokens = list(text.encode())
    one = Pass(tokens=tokens, pages=range(16), **masks)  # type: ignore[arg-type]
    return int(model.run(make_batch([one], **greedy([len(tokens) - 1]))).tokens[0])


def test_what_a_mask_hides_is_not_read() -> None:
    text = "thank you; weather in Bonn"
    model = ScriptedModel("thank you; weather => yes\nweather => no\n=> eh")
    assert chr(_told(model, text)) == "y"
    runs = [0, 5, len(text) - 5]

    assert chr(_told(model, text, masks={len(text) - 1: runs})) == "n"


def test_several_rows_of_a_pass_each_say_what_is_next() -> None:
    """As speculative decoding asks: the prompt, and three guesses of which the last is wrong."""
    model = ScriptedModel("hi => yes\n=> no")
    one = Pass(tokens=b"hiyex", pages=[0])
    tokens = model.run(make_batch([one], **greedy([1, 2, 3]))).tokens

    assert bytes(tokens.tolist()) == b"yes"


def test_a_distribution_has_the_scripted_token_first() -> None:
    batch = make_batch([Pass(tokens=b"hi", pages=[0])], **ranked([1], k=3))
    result = ScriptedModel("hi => {}\n=> no").run(batch)

    assert bytes(result.ranked_ids.tolist()) == b"{ab"
    assert np.allclose(result.ranked_probabilities, [0.5, 0.25, 0.125])


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("hi => yes", "needs a line `=> REPLY`"),
        ("=> a\n=> b", "line 2: a second default, 'b'"),
        ("hello", "line 1: no `=>` in 'hello'"),
        ("\n(a => b\n=> c", r"line 2: '\(a' is no pattern: missing \)"),
        ("(a) => {2}\n=> c", r"line 1: '\(a\)' has no group '2'"),
        ("(a) => {name}\n=> c", "has no group 'name'"),
    ],
)
def test_a_wrong_script_is_refused_with_its_line(script: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        ScriptedModel(script)


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("a1 a2", "2"),
        ("<|im_start|>user\na1<|im_end|>\n<|im_start|>user\nb<|im_end|>\n", "none"),
        ("<|im_start|>user\nlast word<|im_end|>\n<|im_start|>assistant\n", "word"),
        ("c", "[]"),
    ],
)
def test_the_last_match_in_the_last_message_answers(prompt: str, answer: str) -> None:
    script = Script.parse("a(\\d) => {1}\nlast (\\w+)$ => {1}\nc(x)? => [{1}]\n=> none")

    assert script.answer(prompt) == answer
