"""The test harness: an engine with simulated accelerators, in virtual time.

Public: whoever writes an inferlet can test it with what is here, without a model or a GPU.
"""

from .engine import launch_native, outcome_of, simulated_engine
from .hashing import HashModel, LetterTokenizer
from .simulated import SimulatedModel

__all__ = [
    "HashModel",
    "LetterTokenizer",
    "SimulatedModel",
    "launch_native",
    "outcome_of",
    "simulated_engine",
]
