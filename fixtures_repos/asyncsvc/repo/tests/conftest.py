import pytest_asyncio

from asyncsvc import Client, Server


@pytest_asyncio.fixture
async def server(tmp_path):
    async with Server(tmp_path / "values.json") as server:
        yield server


@pytest_asyncio.fixture
async def client(server):
    async with Client(server.port) as client:
        yield client
