"""Tree of thoughts (Yao et al. 2023): expand, judge each thought, keep the best, go on from them.

The pages of what thoughts have in common are shared: a branch computes its own tokens only.
"""

from __future__ import annotations

from typing import Any

import inferlet


async def run(spec: dict[str, Any]) -> str:
    """The best line of thought after `depth` levels, as its text after the prompt."""
    root = await inferlet.Context.create(await inferlet.get_model())
    await root.fill(spec["prompt"])
    frontier = [(root, "")]
    for _ in range(spec["depth"]):
        for context, _text in frontier:
            await context.flush()
        grown = await inferlet.gather(
            *(
                _expand(context, text, opening, spec)
                for context, text in frontier
                for opening in spec["openings"]
            )
        )
        order = sorted(range(len(grown)), key=lambda number: (-grown[number][2], number))
        frontier = [grown[number][:2] for number in order[: spec["keep"]]]
    return frontier[0][1]


async def _expand(
    node: inferlet.Context, text: str, opening: str, spec: dict[str, Any]
) -> tuple[inferlet.Context, str, int]:
    """A child of `node` with its text and what the model itself gives it, 0 to 9."""
    child = await node.fork()
    await child.fill(opening)
    thought = await child.generate(
        max_tokens=spec["tokens"], sampler=inferlet.Greedy(), ignore_eos=True
    )
    await child.flush()
    judge = await child.fork()
    await judge.fill(spec["question"])
    verdict = await judge.generate(
        max_tokens=spec["verdict_tokens"], sampler=inferlet.Greedy(), ignore_eos=True
    )
    await judge.release()
    digits = [letter for letter in verdict.text if letter.isdecimal()]
    return child, text + opening + thought.text, int(digits[0]) if digits else 0
