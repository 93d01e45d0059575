"""The scenario of `tests/guest/test_toolchains.py` in Python."""

import sys
import time

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import api, poll


class Run(exports.Run):  # type: ignore[misc]  # generated when it is built
    def run(self) -> None:
        mode = api.mode()
        counter = api.Counter(40)
        slow, fast = counter.after(200), counter.after(100)
        ready = poll.poll([slow, fast, fast])
        slow.block()
        swapped = api.swap(api.Pair(counter.add(2), "words"))
        try:
            api.swap(api.Pair(0, ""))
        except Err as error:
            api.note(f"refused: {error.value}")
        api.note(f"{list(ready)} {swapped.first_part} {swapped.second}")
        print("to the client")  # noqa: T201  # what the test looks for
        start = time.monotonic()
        time.sleep(0.5)
        api.note(f"slept {time.monotonic() - start:.1f}")
        if mode == "error":
            raise Err("a wanted error")
        if mode == "exception":
            raise ValueError("an unwanted one")
        if mode == "memory":
            hoard = []
            while True:
                hoard.append(bytearray(1 << 20))
        if mode == "exit":
            sys.exit(3)
