"""What components call in the cases is what the report was made of."""

from __future__ import annotations

import pytest

from tools import conformance

from .guest.cases import CASES
from .recording import RESULTS, short
from .running import ALONE, calls_of, record


def test_the_record_is_what_runs() -> None:
    assert conformance.as_json(record()) == conformance.RECORD.read_text(), (
        "run python -m tools.conformance --record"
    )


@pytest.mark.parametrize("name", ALONE)
def test_a_native_guest_makes_the_same_calls(name: str) -> None:
    assert calls_of(name, "native", wasi=False) == calls_of(name, "Python", wasi=False)


def test_the_report_knows_every_function_under_a_name_of_its_own() -> None:
    named = [name for names in conformance.functions().values() for name in names]
    assert sorted(named) == sorted({short(name) for names in RESULTS.values() for name in names})


def test_every_case_names_a_rule() -> None:
    """All but the parts of tests with several instances, which name them themselves."""
    named = {name.rpartition(": ")[2] for tests in RULES.values() for name in tests}
    assert [name for name, case in CASES.items() if case.alone and name not in named] == []


RULES = conformance.tests_of_rules()


def test_nothing_is_without_a_test() -> None:
    assert conformance.gaps(conformance.read_record()) == []


def test_gaps_are_found() -> None:
    record = {"Python": {"one": "returned: blob", "two": "trapped: blob blob.size!"}}
    found = conformance.gaps(record)
    assert not any("#blob:" in gap for gap in found)
    assert any("#blob.size: no component" in gap for gap in found)
    assert any("#embed-image: no component" in gap for gap in found)
