"""docs/configuration.md is what the server does."""

from __future__ import annotations

import re
from pathlib import Path

from pie.server.settings import read_settings
from pie.server.settings_keys import TABLES
from tools import configuration

PAGE = configuration.PAGE.read_text()


def test_the_tables_are_those_of_the_classes() -> None:
    """Stale: run python -m tools.configuration."""
    assert configuration.render(PAGE) == PAGE


def test_every_key_says_what_happens_at_it() -> None:
    for keys in TABLES.values():
        for key in keys.values():
            assert configuration.documented(key.owner).get(key.field), key


def test_the_example_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "config.toml").write_text(example)

    settings = read_settings(tmp_path / "config.toml")

    assert settings.models[0].alias == "small"
    assert settings.server.quotas.stored_bytes == 4 << 30
