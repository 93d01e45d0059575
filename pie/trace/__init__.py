"""Traces: what an engine did, as a timeline for people and a record to replay (docs/tracing.md)."""

from .format import VERSION
from .recorder import Tracer, tracing

__all__ = ["VERSION", "Tracer", "tracing"]
