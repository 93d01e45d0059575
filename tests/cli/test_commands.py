"""`pie build`, `pie model`, `pie doctor`, and the real model through `pie run`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from pie.cli import doctor
from pie.cli.doctor import Finding, Verdict
from pie.cli.home import Home
from tests.model_file import smollm2_path

from .conftest import Ran
from .support import PROBE, returning

Pie = Callable[..., Ran]


@pytest.mark.usefixtures("home")
def test_models_that_are_not_here_are_listed_too(pie: Pie, home: Path) -> None:
    (home / "models" / "hf" / "some" / "model").mkdir(parents=True)
    (home / "models" / "hf" / "some" / "model" / "weights").write_bytes(bytes(3 << 20))

    first, second = pie("model", "list").out.splitlines()

    assert first.startswith("smollm2-135m-instruct\t94 MiB\tnot here yet\t")
    assert second.startswith(f"hf:some/model\t3 MiB\t{home}/models/hf/some/model")


@pytest.mark.usefixtures("home")
def test_the_path_of_a_model_that_is_not_here_tells_how_to_get_it(pie: Pie) -> None:
    ran = pie("model", "path", "smollm2-135m-instruct")

    assert ran.code == 1
    assert ran.err.endswith("pie model pull smollm2-135m-instruct\n")


@pytest.mark.slow
@pytest.mark.usefixtures("shared_home")
def test_pull_prints_the_path_even_if_it_is_here(pie: Pie) -> None:
    path = smollm2_path()

    pulled = pie("model", "pull", "smollm2-135m-instruct")

    assert (pulled.code, pulled.out) == (0, f"{path}\n")
    assert pie("model", "path", "smollm2-135m-instruct").out == f"{path}\n"


@pytest.mark.usefixtures("home")
def test_the_default_model_is_fetched_when_it_is_first_needed(
    pie: Pie, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.wat").write_text(returning("fine"))
    asked: list[str] = []

    def pull(name: str, home: Path, progress: Callable[[str], None]) -> Path:
        asked.append(name)
        progress("downloading it")
        return tiny_model

    monkeypatch.setattr("pie.cli.run.pull", pull)

    ran = pie("run", tmp_path / "good.wat")

    assert asked == ["smollm2-135m-instruct"]
    assert ran == Ran(0, "fine\n", "pie: downloading it\n")


@pytest.mark.slow
@pytest.mark.usefixtures("shared_home")
def test_build_makes_what_run_runs(pie: Pie, tmp_path: Path, tiny_model: Path) -> None:
    made = pie("build", PROBE, "-o", tmp_path / "new" / "probe.wasm")
    ran = pie("run", tmp_path / "new" / "probe.wasm", "--model", tiny_model, "--", "say", "x", "y")

    assert made.code == 0
    assert made.out.startswith(f"{tmp_path}/new/probe.wasm: ")
    assert ran == Ran(0, "x\ny\n", "")


@pytest.mark.slow
@pytest.mark.usefixtures("shared_home")
def test_text_completion_answers_with_the_real_model(pie: Pie) -> None:
    smollm2_path()
    prompt = ("--prompt", "Name the capital of France.", "--temperature", "0")

    shown = pie("run", "text-completion", "--", *prompt, "--max-tokens", "12")
    report: dict[str, Any] = json.loads(
        pie("run", "text-completion", "--json", "--", *prompt, "--max-tokens", "12").out
    )

    assert "Paris" in shown.out
    assert shown.err == ""
    assert report["stdout"] == shown.out
    assert report["return"] == shown.out.rstrip("\n")
    assert report["stats"]["tokens"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("shared_home")
def test_a_run_repeats_itself_until_it_gets_another_seed(pie: Pie, tiny_model: Path) -> None:
    def sampled(*options: str) -> str:
        words = ("--raw", "--temperature", "2", "--max-tokens", "12", "--ignore-eos")
        ran = pie("run", "text-completion", "--model", tiny_model, *options, "--", *words)
        assert ran.code == 0, ran.err
        return ran.out

    assert sampled() == sampled()
    assert sampled("--seed", "5") == sampled("--seed", "5") != sampled()
    exact = ("--seed", "5", "--dtype", "float32")
    assert sampled(*exact) == sampled(*exact)


@pytest.mark.slow
@pytest.mark.usefixtures("home")
def test_doctor_finds_this_machine_well_without_a_model(pie: Pie) -> None:
    ran = pie("doctor")

    assert ran.code == 0, ran.out
    assert "\n--  float32    not tried: it takes a model" in ran.out
    assert "!!" not in ran.out


@pytest.mark.slow
@pytest.mark.usefixtures("shared_home")
def test_doctor_tries_the_reference_on_the_model(pie: Pie) -> None:
    smollm2_path()

    assert "ok  float32    a row has the same bits" in pie("doctor").out


def test_a_missing_package_is_broken_and_ends_the_examination(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What comes after could not be imported."""
    monkeypatch.setattr(
        importlib.metadata,
        "requires",
        lambda _: ["absent-thing>=1", "wasmtime==0.1", 'x; extra == "y"'],
    )

    assert doctor.examine(Home(home)) == 1
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("!!  packages   absent-thing is missing; wasmtime is ")


def test_a_python_that_is_too_new_is_broken(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PYTHONS", ((2, 7), (3, 0)))

    (finding,) = doctor._python(Home(home))

    assert finding.verdict is Verdict.BROKEN
    assert finding.text.endswith("but pie needs >=2.7,<3.0")


def test_a_missing_builder_is_worth_a_note_only(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    (finding,) = doctor._building(Home(home))

    assert finding.verdict is Verdict.NOTE
    assert "pip install 'pie-trio[build]'" in finding.text


def test_anything_broken_is_exit_code_1(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    @attrs.frozen
    class Check:
        verdict: Verdict

        def __call__(self, home: Home) -> Iterator[Finding]:
            yield Finding(self.verdict, "thing", "text")

    for verdicts, code in ((["ok", "--"], 0), (["!!", "ok"], 1)):
        monkeypatch.setattr(doctor, "CHECKS", tuple(Check(Verdict(v)) for v in verdicts))
        assert doctor.examine(Home(home)) == code
    assert "!!  thing      text\nok  thing" in capfd.readouterr().out
