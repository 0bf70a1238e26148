import asyncio
import sys

import pytest

from asyncsvc import Client, Server

pytestmark = pytest.mark.asyncio


async def test_set_and_get(client):
    await client.set("colour", "green")
    assert await client.get("colour") == "green"


async def test_nothing_there(client):
    assert await client.get("colour") is None


async def test_values_with_spaces(client):
    await client.set("colour", "dark green")
    assert await client.get("colour") == "dark green"


@pytest.mark.parametrize("line", ["NOISE", "GET", "GET a b", "SET a"])
async def test_unreadable(client, line):
    assert (await client.ask(line)).startswith("ERROR")


async def test_empty_line_keeps_the_connection(client):
    assert (await client.ask("")).startswith("ERROR")
    assert await client.get("x") is None


async def test_many_clients(server):
    async def one(number):
        async with Client(server.port) as client:
            await client.set("k{}".format(number), str(number))
            return await client.get("k{}".format(number))

    assert await asyncio.gather(*(one(n) for n in range(20))) == [str(n) for n in range(20)]


async def test_kept_in_a_file(tmp_path):
    path = tmp_path / "kept.json"
    async with Server(path) as server, Client(server.port) as client:
        await client.set("a", "1")
    async with Server(path) as server, Client(server.port) as client:
        assert await client.get("a") == "1"


async def test_in_a_process_of_its_own():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "asyncsvc", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        port = int(await asyncio.wait_for(process.stdout.readline(), 30))
        async with Client(port) as client:
            await client.set("a", "1")
            assert await client.get("a") == "1"
    finally:
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 30)
    assert process.returncode == 0


@pytest.mark.xfail(raises=asyncio.TimeoutError, reason="the server never speaks first")
async def test_greeting(client):
    await asyncio.wait_for(client._reader.readline(), 0.05)
