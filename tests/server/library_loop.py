"""A process that changes a library without end, to be killed: `python -m … FOLDER SEED`."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from pie.server.blobs import hash_of
from pie.server.library import ProgramLibrary
from pie.server.program_names import parse_name

LIMIT = 2 << 20
SIZE = 300_000


def main(folder: Path, seed: int) -> None:
    """Tell on stdout what is kept, once it is."""
    chance = random.Random(seed)
    library = ProgramLibrary.open(folder)
    while True:
        wasm = chance.randbytes(SIZE)
        key, version = hash_of(wasm), chance.randrange(3)
        name = parse_name(f"mine@{version}") if chance.random() < 0.5 else None
        library.add_upload("user", wasm, key, name, limit=LIMIT)
        print(f"uploaded {key}", flush=True)  # noqa: T201  # this is what the test reads
        if chance.random() < 0.3:
            library.install(wasm, parse_name(f"ours@{version}"), replace=True)
            print(f"installed {key}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
