"""Write inferlets: programs that run beside a language model.

    import inferlet

    async def main(args: list[str]) -> str:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.user(" ".join(args))
        return (await context.generate(sampler=inferlet.Greedy())).text

The same source runs as a WebAssembly component and, for debugging, as a coroutine of the engine's
process. It may await nothing but this library in a component. `main` returns the result; raising
`Failure` ends with exactly its text, any other exception with its type and text.
"""

from . import store
from .arguments import Arguments
from .client import (
    Subscription,
    broadcast,
    print,
    receive,
    receive_blob,
    send,
    send_blob,
    set_return,
    subscribe,
)
from .context import Context
from .errors import Failure
from .generation import Generation
from .host import gather, sleep
from .model import Model, get_all_models, get_model
from .samplers import Greedy, MinP, Multinomial, Sampler, TopK, TopKTopP, TopP
from .stops import Stop, max_tokens, stop_text, stop_tokens

__all__ = [
    "Arguments",
    "Context",
    "Failure",
    "Generation",
    "Greedy",
    "MinP",
    "Model",
    "Multinomial",
    "Sampler",
    "Stop",
    "Subscription",
    "TopK",
    "TopKTopP",
    "TopP",
    "broadcast",
    "gather",
    "get_all_models",
    "get_model",
    "max_tokens",
    "print",
    "receive",
    "receive_blob",
    "send",
    "send_blob",
    "set_return",
    "sleep",
    "stop_text",
    "stop_tokens",
    "store",
    "subscribe",
]
