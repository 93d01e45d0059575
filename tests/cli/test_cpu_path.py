"""What `pie doctor` says of the way that models take on the processor."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pie.cli import doctor
from pie.cli.doctor import Finding, Verdict
from pie.cli.home import Home

Processor = Callable[..., None]


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Processor]:
    """Pretend that this machine has a processor with some features, and is told a target."""
    pytest.importorskip("llvmlite")
    from pie.kernels.cpu import target

    def pretend(machine: str, *features: str, told: str = "", system: str = "linux") -> None:
        monkeypatch.setattr(platform, "machine", lambda: machine)
        monkeypatch.setattr(target, "host_features", lambda: dict.fromkeys(features, True))
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setenv("PIE_CPU_TARGET", told)
        target.detect.cache_clear()

    yield pretend
    target.detect.cache_clear()


@pytest.fixture(autouse=True)
def fresh_folder(home: Path) -> Iterator[None]:
    if importlib.util.find_spec("llvmlite") is None:
        yield
        return
    from pie.kernels.cpu.code_folder import code_folder

    code_folder.cache_clear()
    yield
    code_folder.cache_clear()


def findings(home: Path) -> list[Finding]:
    return list(doctor._cpu(Home(home)))


AVX2 = ("avx2", "fma", "f16c")
VNNI = ("avx512f", "avx512bw", "avx512vl", "avx512vnni")


def test_the_chosen_target_and_what_better_ones_lack(home: Path, processor: Processor) -> None:
    processor("x86_64", *AVX2, *VNNI)
    chosen, code = findings(home)
    assert chosen.verdict is code.verdict is Verdict.FINE
    assert chosen.text.startswith("models run on packed kernels for avx2, compiled by LLVM ")
    assert ": it has avx2, f16c, fma; " in chosen.text
    assert "; for avx512-bf16 it has no avx512bf16; " in chosen.text
    assert chosen.text.endswith("; for avx2-vnni it has no avxvnni")
    assert code.text.startswith(f"machine code in {home}/cache/kernels/")
    assert code.text.endswith(": 0.0 MiB")


def test_the_best_target_has_no_excuses(home: Path, processor: Processor) -> None:
    processor("x86_64", *AVX2, *VNNI, "avx512bf16")
    text = findings(home)[0].text
    assert "for avx512-bf16" in text
    assert "no " not in text.split(": ", 1)[1]


def test_another_kind_of_processor_is_judged_by_its_own_targets(
    home: Path, processor: Processor
) -> None:
    processor("aarch64", "neon")
    chosen = findings(home)[0]
    assert chosen.verdict is Verdict.NOTE
    slowly = "models run in torch, in float32 and slowly"
    assert chosen.text == f"{slowly}: for neon-dot it has no dotprod"
    processor("riscv64")
    assert findings(home)[0].text == f"{slowly}: there are no packed kernels for riscv64"
    processor("x86_64", *AVX2, system="darwin")
    assert findings(home)[0].text == f"{slowly}: packed kernels need Linux"


def test_a_target_that_is_asked_for(home: Path, processor: Processor) -> None:
    processor("x86_64", *AVX2, told="avx2")
    chosen = findings(home)[0]
    assert chosen.verdict is Verdict.FINE
    assert chosen.text.endswith(": PIE_CPU_TARGET asks for it")
    processor("x86_64", *AVX2, told="portable8")
    chosen = findings(home)[0]
    assert chosen.verdict is Verdict.NOTE
    assert chosen.text.endswith("PIE_CPU_TARGET asks for it, which is for tests and slow")


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("avx2-vnni", "PIE_CPU_TARGET avx2-vnni: this processor has no avxvnni"),
        ("neon-dot", "PIE_CPU_TARGET neon-dot: this processor has no aarch64"),
        ("mmx", "PIE_CPU_TARGET 'mmx' is unknown; there are avx512-bf16, "),
    ],
)
def test_a_target_that_cannot_be_is_broken(
    home: Path, processor: Processor, told: str, reason: str
) -> None:
    processor("x86_64", *AVX2, told=told)
    (finding,) = findings(home)
    assert finding.verdict is Verdict.BROKEN
    assert finding.text.startswith(reason)


def test_a_folder_for_machine_code_that_is_no_use_is_broken(
    home: Path, processor: Processor
) -> None:
    processor("x86_64", *AVX2)
    (home / "cache").mkdir(parents=True)
    (home / "cache" / "kernels").touch()
    _, code = findings(home)
    assert code.verdict is Verdict.BROKEN
    assert "kernels" in code.text


def test_llvmlite_is_missing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: Any) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    (finding,) = findings(home)
    assert finding.verdict is Verdict.NOTE
    assert finding.text.endswith("slowly: llvmlite is missing: pip install 'pie-trio[cpu]'")
