"""Every case ends as it says, as a component and natively."""

from __future__ import annotations

import pytest

from pie.ids import EventCode

from .guest.cases import CASES
from .running import ALONE, ran


@pytest.mark.parametrize("caller", ["native", "Python"])
@pytest.mark.parametrize("name", ALONE)
def test_a_case_ends_as_it_says(name: str, caller: str) -> None:
    case, ending = CASES[name], ran(name, caller).ending
    if case.traps:
        assert (ending.event.code, ending.event.text) == (EventCode.EXCEPTION, case.traps)
    else:
        assert ending.returned == case.returns
    assert ending.messages == case.messages
    assert ending.blobs == case.blobs
