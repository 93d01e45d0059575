"""The pytest plugin, as a user's own test suite meets it: in a process of its own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

INFERLET = """
import inferlet
from words import GREETING

async def main(args):
    if args == ["listen"]:
        return await inferlet.receive()
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.user(GREETING + " ".join(args))
    return (await context.generate(max_tokens=40)).text
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A project with an inferlet `greeter`, whose app.py has a module beside it."""
    (tmp_path / "greeter").mkdir()
    (tmp_path / "greeter" / "app.py").write_text(INFERLET)
    (tmp_path / "greeter" / "words.py").write_text("GREETING = 'Hello, '")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    return tmp_path


def _pytest(suite: Path, source: str, conftest: str = "") -> str:
    """What pytest prints of a suite with these tests; other plugins are not loaded."""
    (suite / "test_it.py").write_text(source)
    (suite / "conftest.py").write_text(conftest)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "pie.pytest_plugin", "-q", "-rA", str(suite)],
        cwd=suite,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_package_announces_the_plugin_to_pytest() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (module,) = project["entry-points"]["pytest11"].values()

    assert hasattr(importlib.import_module(module), "run_inferlet")


def test_three_lines_test_an_inferlet(suite: Path) -> None:
    printed = _pytest(
        suite,
        """
async def test_it_greets(run_inferlet):
    outcome = await run_inferlet("greeter", "world")
    assert len(outcome.text) == 40
""",
    )

    assert "1 passed" in printed, printed


def test_a_suite_chooses_its_machine_its_script_and_what_it_sends(suite: Path) -> None:
    printed = _pytest(
        suite,
        """
import trio

async def test_answers(run_inferlet, pie_gpu, pie_engine):
    began = trio.current_time()
    outcome = await run_inferlet("greeter", "world")
    assert outcome.text == "Hello yourself."
    assert trio.current_time() - began > 16 * 0.006
    assert len(pie_gpu.steps) == 16
    assert await pie_engine.instances() == []

async def test_messages(run_inferlet):
    assert (await run_inferlet("greeter", "listen", sends=["psst"])).text == "psst"
    assert "Exception" not in (await run_inferlet("greeter", "listen")).event.text
""",
        """
from functools import partial
import pytest
from pie.testing import H100, LLAMA_3_8B, ScriptedModel, SimulatedGpu

@pytest.fixture
def pie_gpu():
    script = partial(ScriptedModel, "Hello, world => Hello yourself.\\n=> What?")
    return SimulatedGpu.of(H100, LLAMA_3_8B, make_runner=script)
""",
    )

    assert "2 passed" in printed, printed


def test_failures_are_shown_as_they_are(suite: Path) -> None:
    """No groups of nurseries around an assertion, nor around pytest's own skip and fail."""
    printed = _pytest(
        suite,
        """
import pytest
import trio

async def test_wrong(run_inferlet):
    outcome = await run_inferlet("greeter", "world")
    assert outcome.text == "something else"

async def test_skipped(pie_engine):
    pytest.skip("not today")

@pytest.mark.pie
async def test_waits_for_ever():
    await trio.sleep_forever()

def test_sync(run_inferlet):
    pass

async def test_no_inferlet(run_inferlet):
    await run_inferlet("nowhere")
""",
    )

    assert "4 failed, 1 skipped" in printed, printed
    assert "Group" not in printed
    assert "FAILED test_it.py::test_wrong - AssertionError: assert" in printed
    assert "has not ended after 86400 s of its clock" in printed
    assert "run_inferlet works in an `async def` test only" in printed
    assert "nowhere is not an inferlet: it has no app.py" in printed


def test_suites_that_do_not_ask_for_it_are_left_alone(suite: Path) -> None:
    """Another plugin's async tests stay its own, and Pie is not even imported."""
    printed = _pytest(
        suite,
        """
import sys

async def test_of_another_plugin():
    raise AssertionError("never awaited by us")

def test_nothing_of_pie_is_imported():
    assert "pie.testing" not in sys.modules
    assert "trio" not in sys.modules
""",
        """
import inspect
import pytest

@pytest.hookimpl
def pytest_pyfunc_call(pyfuncitem):
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        print("taken by the other plugin")
        return True
""",
    )

    assert "2 passed" in printed, printed
    assert "taken by the other plugin" in printed


def test_the_marker_gives_virtual_time_an_order_of_tasks_and_real_time(suite: Path) -> None:
    printed = _pytest(
        suite,
        """
import time
import pytest
import trio

orders = []

async def order():
    done = []
    async def one(number):
        await trio.lowlevel.checkpoint()
        done.append(number)
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(one, number)
    return done

@pytest.mark.pie(seed=7)
@pytest.mark.parametrize("again", [1, 2])
async def test_the_same(again):
    orders.append(await order())
    assert orders[0] == orders[-1]

@pytest.mark.pie(seed=8)
async def test_another():
    assert await order() != orders[0]

@pytest.mark.pie
async def test_a_day_takes_no_time():
    began = time.monotonic()
    await trio.sleep(20 * 3600)
    assert time.monotonic() - began < 60

@pytest.mark.pie(real_time=True)
async def test_real_time():
    began = time.monotonic()
    await trio.sleep(0.01)
    assert time.monotonic() - began >= 0.01
""",
    )

    assert "5 passed" in printed, printed
