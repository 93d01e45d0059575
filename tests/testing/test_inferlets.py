"""What `run_inferlet` takes, through the fixtures of the plugin."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from pie.engine import Engine
from pie.errors import UsageError
from pie.testing import RunInferlet, inferlets, simulated_engine
from pie.testing.running import Opening

ROOT = Path(__file__).parents[2]
COMPLETION = ROOT / "inferlets" / "text-completion"
DECODE = ROOT / "tests" / "guests" / "decode.wat"


async def test_a_coroutine_function(run_inferlet: RunInferlet) -> None:
    async def main(args: list[str]) -> str:
        return args[0]

    assert (await run_inferlet(main, "yes")).text == "yes"


async def test_a_component_in_virtual_time(run_inferlet: RunInferlet, pie_engine: Engine) -> None:
    began = trio.current_time()
    outcome = await run_inferlet(DECODE, "5")

    assert len(outcome.text) == 5
    assert trio.current_time() - began >= 5 * 0.010
    assert await pie_engine.instances() == []


async def test_a_folder_as_the_component_that_is_built_of_it(
    run_inferlet: RunInferlet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The building itself is the next test's: it compiles for half a minute."""
    built: list[Path] = []

    def build(folder: Path, _: Path) -> Path:
        built.append(folder)
        return DECODE

    monkeypatch.setattr(inferlets, "build_cached", build)
    outcome = await run_inferlet(tmp_path, "5", as_component=True)

    assert (built, len(outcome.text)) == ([tmp_path], 5)


@pytest.mark.long
async def test_a_folder_does_the_same_natively_and_as_a_component() -> None:
    arguments = ("--prompt", "hello", "--max-tokens", "9", "--ignore-eos")
    async with simulated_engine() as engine:
        run = RunInferlet(lambda: engine, COMPLETION.parent, ROOT / ".build")
        native, component = [
            await run(COMPLETION.name, *arguments, seed=3, as_component=as_component)
            for as_component in (False, True)
        ]
    run.close()

    assert native == component
    assert len(native.text) == 9


async def test_what_is_no_inferlet_is_refused(run_inferlet: RunInferlet, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not an inferlet: it has no app\.py"):
        await run_inferlet(tmp_path)
    with pytest.raises(UsageError, match="only a folder or a file"):
        await run_inferlet(lambda args: None, as_component=True)  # type: ignore[arg-type, return-value]


async def test_an_engine_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="inside of an async test only"):
        Opening(simulated_engine).value  # noqa: B018
