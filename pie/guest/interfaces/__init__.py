"""The host interfaces that inferlets call; `ALL` is what the host links."""

from .adapter import adapter
from .common import common
from .ext import ext
from .forward import forward
from .image import image
from .kvs import kvs
from .message import message
from .runtime import runtime
from .tokenize import tokenize
from .zo import zo

ALL = (adapter, common, ext, forward, image, kvs, message, runtime, tokenize, zo)
