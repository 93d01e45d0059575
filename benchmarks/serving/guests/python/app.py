"""The inferlets of the serving benchmark: the first argument names one, the second is its JSON.

One component for all of them: it is built and compiled once. What each returns is JSON, too.
"""

from __future__ import annotations

import json

from jobs import JOBS  # type: ignore[import-not-found]  # beside it in the component


async def main(args: list[str]) -> str:
    name, specification = args
    return json.dumps(await JOBS[name](json.loads(specification)))
