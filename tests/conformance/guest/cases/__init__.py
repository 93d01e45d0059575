"""The cases of the conformance component, one module per part of the contract."""

from . import (
    adapters,
    core,
    decoding,
    environment,
    forward,
    mistakes,
    passes,
    resources,
    together,
    vectors,
)
from .case import CASES, Case, Guest, Refusal, as_text

__all__ = ["CASES", "Case", "Guest", "Refusal", "as_text"]

assert all((adapters, core, decoding, environment, forward))
assert all((mistakes, passes, resources, together, vectors))
