"""Replays of traces: the same requests under another policy, seed or machine (docs/tracing.md)."""

from .blank import BlankRunner
from .running import Replayed, replay
from .settings import MACHINES, SHAPES, FittedTiming, Setting, fitted, replay_under

__all__ = [
    "MACHINES",
    "SHAPES",
    "BlankRunner",
    "FittedTiming",
    "Replayed",
    "Setting",
    "fitted",
    "replay",
    "replay_under",
]
