"""The client."""

import asyncio


class Client:
    def __init__(self, port):
        self.port = port

    async def __aenter__(self):
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *exc_info):
        self._writer.write(b"QUIT\n")
        self._writer.close()
        await self._writer.wait_closed()

    async def ask(self, line):
        self._writer.write(line.encode() + b"\n")
        await self._writer.drain()
        return (await asyncio.wait_for(self._reader.readline(), 10)).decode().rstrip("\n")

    async def get(self, key):
        answer = await self.ask("GET " + key)
        return answer[len("VALUE ") :] if answer.startswith("VALUE ") else None

    async def set(self, key, value):
        answer = await self.ask("SET {} {}".format(key, value))
        if answer != "OK":
            raise ValueError(answer)
