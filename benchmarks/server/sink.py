"""Clients that do nothing but count what comes, so that the server is the one who is measured.

    python -m benchmarks.server.sink PORT PROGRAM

Each line of stdin has a number of connections and how many messages each is to get. The answer is
how many seconds it took, as JSON.
"""

from __future__ import annotations

import json
import selectors
import sys
import time

from .raw import Raw, message

_TEXT = "x"


def drain(port: int, program: str, connections: int, messages: int) -> float:
    """Seconds from the launch of all to the last message of all."""
    raws = [Raw.user(port, f"sink {number}") for number in range(connections)]
    arguments = ["flood", str(messages), _TEXT]
    launch = message("launch_instance", corr_id=1000, program_hash=program, arguments=arguments)
    began = time.perf_counter()
    for raw in raws:
        raw.send(launch)
    # The answer to the launch, the messages, and the end.
    missing = dict.fromkeys(raws, messages + 2)
    with selectors.DefaultSelector() as selector:
        for raw in raws:
            selector.register(raw, selectors.EVENT_READ, raw)
        while missing:
            for key, _ in selector.select():
                raw = key.data
                missing[raw] -= raw.count()
                if not missing[raw]:
                    selector.unregister(raw)
                    del missing[raw]
    seconds = time.perf_counter() - began
    for raw in raws:
        raw.close()
    return seconds


def main() -> None:
    port, program = int(sys.argv[1]), sys.argv[2]
    for line in sys.stdin:
        connections, messages = map(int, line.split())
        sys.stdout.write(json.dumps(drain(port, program, connections, messages)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
