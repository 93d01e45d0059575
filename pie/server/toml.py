"""Reading TOML, with one line about what is wrong with it."""

from __future__ import annotations

import tomllib
from typing import Any

from pie.errors import UsageError


def parse_toml(content: bytes) -> dict[str, Any]:
    """The tables of a document; UsageError if it is none."""
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"not UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError) as error:  # a huge number, and tables in tables in tables
        raise UsageError(f"not TOML: {error}") from None
