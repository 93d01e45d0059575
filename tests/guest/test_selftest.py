"""The self-test of guest hosting passes here, and fails where it should."""

from __future__ import annotations

import pytest

from pie.guest import _capi, selftest

from .support import make_instance


async def test_this_machine_passes() -> None:
    findings = await selftest.selftest(make_instance)
    assert all(finding.passed for finding in findings), findings
    assert len(findings) == 3


async def test_an_unknown_layout_and_a_shallow_stack_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_capi, "LAYOUT", None)

    def overflow(depth: int) -> int:
        raise RecursionError("stack overflow (used 16 kB)")

    monkeypatch.setattr(selftest, "_nested", overflow)
    layout, deep, _ = await selftest.selftest(make_instance)
    assert not layout.passed
    assert not deep.passed
    assert "RecursionError: stack overflow (used 16 kB)" in deep.detail
