"""Pie: a programmable LLM server. Programs (inferlets) run beside the model.

Kept light on purpose: importing `pie` or `pie.actors` pulls in neither torch nor wasmtime.
"""

from .errors import PieError as PieError

__version__ = "0.1.0"
