"""Complete a prompt, as a chat turn or as plain text, and print the pieces as they come."""

from __future__ import annotations

import inferlet


def options() -> inferlet.Arguments:
    parser = inferlet.Arguments("text-completion", __doc__ or "")
    parser.add_argument("-p", "--prompt", default="Tell me a short story.")
    parser.add_argument("-s", "--system", help="system message of the chat")
    parser.add_argument("-n", "--max-tokens", type=int, default=256)
    parser.add_argument("-t", "--temperature", type=float, default=0.7, help="0 is greedy")
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--raw", action="store_true", help="plain text, no chat template")
    parser.add_argument("--stop", action="append", default=[], help="end where this text appears")
    parser.add_argument("--ignore-eos", action="store_true", help="generate all tokens asked for")
    return parser


async def main(args: list[str]) -> str:
    chosen = options().parse_args(args)
    context = await inferlet.Context.create(await inferlet.get_model())
    if chosen.raw:
        await context.fill(chosen.prompt)
    else:
        if chosen.system:
            await context.system(chosen.system)
        await context.user(chosen.prompt)
    generation = context.stream(
        max_tokens=chosen.max_tokens,
        sampler=inferlet.TopP(chosen.top_p, chosen.temperature),
        stop=inferlet.stop_text(*chosen.stop),
        ignore_eos=chosen.ignore_eos,
    )
    async for piece in generation:
        await inferlet.print(piece, end="")
    await inferlet.print()
    return generation.text
