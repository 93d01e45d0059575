"""Two hundred clients in a process of their own, for `test_many_clients`.

Reads the number of a round per line and answers with what went wrong in it, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys

from benchmarks.server.clients import (
    COMPLETED,
    Client,
    Heard,
    Refused,
    connected,
    expected,
    stream,
)

CLIENTS, KILLED = 200, 20
_TOKENS, _ENDLESS = 20, 8000
_HEARD_BEFORE = 3
"""Tokens that a client has had when it is killed."""
_AGAIN_SECONDS = 0.01


class Round:
    """One client after the other connects; then all of them launch at once."""

    def __init__(self, port: int, program: str, number: int) -> None:
        self._port, self._program, self._number = port, program, number
        self._all_there = asyncio.Barrier(CLIENTS)

    async def run(self) -> list[str]:
        """What went wrong."""
        clients = (self._serve(number) for number in range(CLIENTS))
        outcomes = await asyncio.gather(*clients, return_exceptions=True)
        return [f"client {n}: {error!r}" for n, error in enumerate(outcomes) if error is not None]

    async def _serve(self, number: int) -> None:
        user, prompt = f"user {number}", f"round {self._number}, client {number}"
        tokens = _TOKENS + number % 10
        if number >= KILLED:
            async with connected(self._port, user) as client:
                await self._all_there.wait()
                await stream(client, self._program, prompt, tokens)
        elif number % 2:
            await self._attached_again(number, user, prompt, tokens)
        else:
            await self._terminated(number, user, prompt)

    async def _attached_again(self, number: int, user: str, prompt: str, tokens: int) -> None:
        """What was on its way to the dead client is lost, and nothing else."""
        before, after = Heard(), Heard()
        instance = await self._killed(number, user, prompt, tokens, before)
        async with connected(self._port, user) as client:
            await _attach(client, instance)
            await client.hear(after)
            await client.ask("ping")
            text = expected(prompt, tokens)
            assert text.startswith(before.text), before
            assert text.endswith(after.text), after
            assert len(before.text + after.text) <= len(text), (before, after)
            assert after.end == (COMPLETED, text), after
            assert not client.waiting, client.waiting

    async def _terminated(self, number: int, user: str, prompt: str) -> None:
        instance = await self._killed(number, user, prompt, _ENDLESS, Heard())
        async with connected(self._port, user) as client:
            await client.ask("terminate_instance", instance_id=instance)
            listing = await client.ask("list_instances")
            while listing["instances"]:  # the server has not yet seen that its client is dead
                await asyncio.sleep(_AGAIN_SECONDS)
                listing = await client.ask("list_instances")
            assert not client.waiting, client.waiting

    async def _killed(self, number: int, user: str, prompt: str, tokens: int, heard: Heard) -> str:
        """Begin an upload and an instance, and vanish in the middle of both."""
        async with connected(self._port, user) as client:
            await client.send(
                "upload_program",
                corr_id=1000,
                program_hash="0" * 64,
                chunk_index=0,
                total_chunks=2,
                chunk_data=bytes(100_000),
            )
            await self._all_there.wait()
            instance = await client.launch(self._program, "tokens", str(tokens), prompt)
            await client.hear(heard, pieces=_HEARD_BEFORE)
            client.abort(reset=number % 4 < 2)
        return instance


async def _attach(client: Client, instance: str) -> None:
    while True:
        try:
            await client.ask("attach_instance", instance_id=instance)
        except Refused as refusal:
            if "already attached" not in str(refusal):
                raise
            # The server has not seen yet that its client is dead.
            await asyncio.sleep(_AGAIN_SECONDS)
        else:
            return


async def main(port: int, program: str) -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        problems = await Round(port, program, int(line)).run()
        sys.stdout.write(json.dumps(problems) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
