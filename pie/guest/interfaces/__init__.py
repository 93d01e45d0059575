"""The host interfaces that inferlets call; `ALL` is what the host links."""

from .common import common
from .forward import forward
from .kvs import kvs
from .message import message
from .runtime import runtime
from .tokenize import tokenize

ALL = (common, forward, kvs, message, runtime, tokenize)
