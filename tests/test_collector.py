"""The collector's settings belong to the process, so they are tried in one of their own."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc
from pie.collector import relax_collector, resting_collector
class Ring: pass
try:
    with resting_collector():
        assert not gc.isenabled()
        raise LookupError
except LookupError:
    assert gc.isenabled()
with resting_collector():
    assert not gc.isenabled()
    relax_collector()
    assert gc.isenabled() and gc.get_freeze_count() > 1000, gc.get_freeze_count()
assert gc.isenabled()
ring = Ring(); ring.self = ring; del ring
assert gc.collect() >= 1
print(gc.get_threshold())
"""


def test_a_serving_process_leaves_what_is_loaded_alone_and_still_finds_new_cycles() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )

    assert done.stdout == "(100000, 50, 100)\n"
