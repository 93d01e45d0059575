"""text-completion, natively and as the component that `pie build` makes of it."""

from __future__ import annotations

import pytest

from pie.ids import EventCode
from pie.testing import Outcome, load_main, outcome_of, run_native, simulated_engine

from .loading import ROOT, component_of

FOLDER = ROOT / "inferlets" / "text-completion"


async def complete(*arguments: str, seed: int = 1) -> Outcome:
    async with simulated_engine() as engine:
        return await run_native(engine, load_main(FOLDER), arguments, seed=seed)


async def test_the_pieces_on_stdout_are_the_text() -> None:
    done = await complete("--prompt", "hello", "--max-tokens", "9", "--ignore-eos")
    assert len(done.text) == 9
    assert done.stdout == done.text + "\n"


async def test_the_seed_decides() -> None:
    one, same, other = [
        await complete("--max-tokens", "20", "--ignore-eos", seed=seed) for seed in (1, 1, 2)
    ]
    assert one.text == same.text != other.text


async def test_temperature_zero_needs_no_seed() -> None:
    one, other = [
        await complete("--max-tokens", "20", "--temperature", "0", seed=seed) for seed in (1, 2)
    ]
    assert one.text == other.text


async def test_the_chat_template_and_the_system_message_count() -> None:
    greedy = ("--max-tokens", "20", "--temperature", "0", "--prompt", "hello")
    texts = [
        (await complete(*greedy)).text,
        (await complete(*greedy, "--raw")).text,
        (await complete(*greedy, "--system", "be brief")).text,
        (await complete(*greedy, "--raw", "--prompt", "<|im_start|>user\nhello<|im_end|>\n")).text,
    ]
    assert len(set(texts)) == 4


async def test_a_stop_ends_the_text_before_it() -> None:
    whole = (await complete("--temperature", "0", "--max-tokens", "30")).text
    stop = whole[10:12]
    cut = await complete("--temperature", "0", "--max-tokens", "30", "--stop", stop)
    assert cut.text == whole[: whole.index(stop)]


async def test_a_wrong_option_is_an_exception_with_the_usage() -> None:
    done = await complete("--no-such-option")
    assert done.event.code is EventCode.EXCEPTION
    assert done.event.text.startswith("usage: text-completion")
    assert "unrecognized arguments: --no-such-option" in done.event.text


@pytest.mark.slow
async def test_the_component_says_what_the_native_inferlet_says() -> None:
    runs = [
        ["--max-tokens", "40", "--ignore-eos", "--top-p", "0.9"],
        ["--max-tokens", "40", "--temperature", "0", "--system", "be brief"],
        ["--max-tokens", "40", "--raw", "--stop", "e"],
        ["--max-tokens", "x"],
    ]
    async with component_of(FOLDER) as program, simulated_engine() as engine:
        for arguments in runs:
            component = await outcome_of(await engine.launch(program, arguments, seed=5))
            native = await run_native(engine, load_main(FOLDER), arguments, seed=5)
            assert component == native
