"""Log lines for people or for machines, each with the instance, user or session it is about."""

from __future__ import annotations

import json
import logging
import time

FIELDS = ("model", "user", "instance", "peer")
"""What a record may say about itself by `extra`."""


class TextFormatter(logging.Formatter):
    """`2026-01-31 12:00:00.123 INFO launched text-completion instance=... user=...`."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        fields = " ".join(f"{name}={value}" for name, value in _fields(record).items())
        return " ".join(_printable(part) for part in (line, fields) if part)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with time (UTC), level, logger and message."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        milliseconds = f".{int(record.msecs):03d}Z"
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + milliseconds,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _fields(record: logging.LogRecord) -> dict[str, str]:
    return {name: str(getattr(record, name)) for name in FIELDS if hasattr(record, name)}


def _printable(text: str) -> str:
    """Users choose names: they cannot begin a line of their own."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def configure_logging(*, as_json: bool, level: int) -> None:
    """Log to stderr from now on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # What it says about connections is of no use to anybody but its authors.
    logging.getLogger("quart").setLevel(max(level, logging.WARNING))
