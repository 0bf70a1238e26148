"""``python -m asyncsvc``: serves on a free port, which it prints, until standard input ends."""

import asyncio
import sys

from .server import Server


async def main():
    async with Server() as server:
        print(server.port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
