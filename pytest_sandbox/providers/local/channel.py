"""Descriptors between the event loop and a sandbox: sockets for orders, pipes for data.

Knows nothing of what the messages mean.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from collections.abc import AsyncIterable
from typing import Any

import anyio
import anyio.lowlevel

from pytest_sandbox.providers.local.inside import linux

CHUNK = 1 << 16
_PIPE_SIZE = 1 << 18

Message = dict[str, Any]


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Ours, which does not block, and theirs."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


def pipe(*, ours: str) -> tuple[int, int]:
    """(read end, write end); the end named by ``ours``, "read" or "write", does not block."""
    read, write = os.pipe()
    os.set_blocking(read if ours == "read" else write, False)
    try:
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    except OSError:
        pass
    return read, write


def pending(fd: int) -> int:
    """Bytes that can be read from ``fd`` now."""
    answer = fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0")
    return int(struct.unpack("i", answer)[0])


async def send(channel: socket.socket, message: Message, fds: list[int]) -> None:
    """Raises OSError (BrokenPipeError) when the other side is gone."""
    while True:
        try:
            linux.send_message(channel, message, fds)
            return
        except BlockingIOError:
            await anyio.wait_writable(channel)


async def receive(channel: socket.socket) -> Message | None:
    """The next message, or None once the other side is gone."""
    while True:
        await anyio.wait_readable(channel)
        try:
            message, fds = linux.receive_message(channel)
        except BlockingIOError:
            continue
        for fd in fds:
            os.close(fd)
        return message


async def write_all(fd: int, data: bytes) -> None:
    """Raises BrokenPipeError when nobody reads any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view[: 4 * CHUNK]) :]
        except BlockingIOError:
            await anyio.wait_writable(fd)


async def chunks(data: bytes | AsyncIterable[bytes]) -> AsyncIterable[bytes]:
    if isinstance(data, (bytes, bytearray, memoryview)):
        yield bytes(data)
        return
    async for chunk in data:
        yield chunk


async def read_some(fd: int) -> bytes:
    """The next bytes, b"" at the end."""
    while True:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            await anyio.wait_readable(fd)
        else:
            # A stream that always has data must not keep the event loop to itself.
            await anyio.lowlevel.checkpoint()
            return data


async def wait_closed(fd: int) -> None:
    """Returns when all write ends of a pipe nobody writes to are closed."""
    while True:
        try:
            if not os.read(fd, CHUNK):
                return
        except BlockingIOError:
            await anyio.wait_readable(fd)


def close_all(fds: list[int]) -> None:
    for fd in fds:
        try:
            os.close(fd)
        except OSError:
            pass
