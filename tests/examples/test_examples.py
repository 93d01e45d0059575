"""The examples do what they say."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def test_an_inferlets_own_tests_run_in_virtual_time_on_a_simulated_h100(tmp_path: Path) -> None:
    """As its author runs them: with the plugin alone, and none of our own fixtures."""
    options = ["-q", "-c", os.devnull, "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "pie.pytest_plugin", *options, EXAMPLES / "testing"],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "5 passed" in done.stdout, done.stdout + done.stderr


@pytest.fixture(scope="module")
def capacity() -> Any:
    spec = importlib.util.spec_from_file_location("capacity", EXAMPLES / "capacity.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["capacity"] = module  # attrs looks the annotations up there
    spec.loader.exec_module(module)
    return module


SHORT = [
    *("--prompt", "40", "--reply", "10,20", "--tool-result", "10", "--tool-seconds", "0.1"),
    *("--seconds", "0.5"),
]


def test_a_capacity_question_is_answered_with_a_table(
    capacity: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A goal that a few agents keep and 64 do not: at 70 µs of host time a token, they cannot."""
    capacity.main([*SHORT, "--goal-ms", "6", "--first", "16"])
    *table, answer = capsys.readouterr().out.splitlines()
    tries = {int(line.split()[0]): line.split()[-1] for line in table[1:]}
    found = re.fullmatch(r"H200 with llama-3-8b: (\d+) agents keep p99 <= 6 ms.*", answer)

    assert found is not None, answer
    kept = {agents for agents, goal in tries.items() if goal == "kept"}
    assert int(found[1]) == max(kept)
    assert min(tries.keys() - kept) > max(kept)


def test_the_same_seed_gives_the_same_row(capacity: Any) -> None:
    question, first, _ = capacity._question(SHORT)

    assert question.measure(first // 8) == question.measure(first // 8)


def test_more_agents_get_more_done_more_slowly(capacity: Any) -> None:
    question, _, _ = capacity._question(SHORT)
    few, many = question.measure(2), question.measure(32)

    assert few.tokens_per_second < many.tokens_per_second
    assert few.p99_ms < many.p99_ms
    assert few.pages <= many.pages
