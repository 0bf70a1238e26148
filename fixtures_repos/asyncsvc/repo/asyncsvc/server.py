"""The server: ``SET key value``, ``GET key``, ``QUIT``, one request a line."""

import asyncio
import json


class Server:
    def __init__(self, path=None):
        self.path = path
        self.values = json.loads(path.read_text()) if path and path.exists() else {}
        self._server = None

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info):
        self._server.close()
        if self.path:
            self.path.write_text(json.dumps(self.values))

    async def _serve(self, reader, writer):
        try:
            while True:
                line = await reader.readline()
                if not line or line.strip() == b"QUIT":
                    break
                writer.write(self.answer(line.decode()).encode() + b"\n")
                await writer.drain()
        finally:
            writer.close()

    def answer(self, line):
        verb, *words = line.split()
        if verb == "SET" and len(words) >= 2:
            self.values[words[0]] = words[1]
            return "OK"
        if verb == "GET" and len(words) == 1:
            return "VALUE " + self.values[words[0]] if words[0] in self.values else "NONE"
        return "ERROR cannot read " + repr(line.strip())
