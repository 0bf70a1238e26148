"""The program: control plane and router on one port, and the side door on another."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from grpclib.server import Server

from tests.emulators.control import main
from tests.emulators.machine import Machines
from tests.emulators.modal.cloud import Cloud
from tests.emulators.modal.plane import ControlPlane
from tests.emulators.modal.router import Router
from tests.emulators.modal.serving import TOKEN_ID, TOKEN_SECRET, Desk, DetailsCodec, complete


class Modal:
    """The emulator, as the side door sees it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.faults = desk.faults
        self.log = desk.log
        self.env: Mapping[str, str] = {
            "MODAL_SERVER_URL": desk.url,
            "MODAL_TOKEN_ID": TOKEN_ID,
            "MODAL_TOKEN_SECRET": TOKEN_SECRET,
            "MODAL_CONFIG_PATH": "/dev/null",
            "MODAL_DISABLE_API_PROXY": "1",
        }

    def state(self) -> dict[str, Any]:
        cloud = self._desk.cloud
        return {
            "live": [
                {
                    "id": sandbox.id,
                    "name": sandbox.definition.name,
                    "tags": sandbox.tags,
                    "timeout": sandbox.definition.timeout_secs,
                    "idle_timeout": sandbox.definition.idle_timeout_secs,
                    "blocked": sandbox.definition.network_access.network_access_type == 2,
                    "regions": list(sandbox.definition.scheduler_placement.regions),
                    "cpu": [
                        sandbox.definition.resources.milli_cpu,
                        sandbox.definition.resources.milli_cpu_max,
                    ],
                    "memory": [
                        sandbox.definition.resources.memory_mb,
                        sandbox.definition.resources.memory_mb_max,
                    ],
                }
                for sandbox in cloud.running()
            ],
            "snapshots": [
                image.id for image in cloud.images.values() if image.snapshot is not None
            ],
            "endless": [
                image.id
                for image in cloud.images.values()
                if image.snapshot is not None and image.expires is None
            ],
            "names": dict(cloud.names),
        }

    async def act(self, action: str, arguments: Mapping[str, Any]) -> Any:
        """What happens at Modal's.

        lose (id, status: TIMEOUT, KERNEL_OOM_KILL, ..., exitcode), same_time (all were made at
        once), lifetime (seconds that new tokens are good for), page (size), delete_image (id),
        address (url: where clients are sent, of a relay in front of this).
        """
        if action == "lose":
            given = dict(arguments)
            await self._desk.lose(self._desk.cloud.sandboxes[given.pop("id")], **given)
        elif action == "same_time":
            for sandbox in self._desk.cloud.running():
                sandbox.created_at = 1e9
        elif action == "lifetime":
            self._desk.lifetime = float(arguments["seconds"])
        elif action == "page":
            self._desk.page = int(arguments["size"])
        elif action == "delete_image":
            await self._desk.cloud.delete_image(arguments["id"])
        elif action == "address":
            self._desk.url = str(arguments["url"])
        else:
            raise ValueError(action)
        return {}


@asynccontextmanager
async def opened(state_dir: Path, port: int) -> AsyncIterator[Modal]:
    async with Machines(state_dir) as machines:
        cloud = Cloud(machines)
        desk = Desk(cloud)
        services = [complete(ControlPlane)(desk), complete(Router)(desk)]
        server = Server(services, status_details_codec=DetailsCodec())
        listening = socket.create_server(("127.0.0.1", port))
        await server.start(sock=listening)
        desk.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            yield Modal(desk)
        finally:
            server.close()
            await cloud.close()
            desk.hang_up()
            await server.wait_closed()
            # A transport is closed in the loop's next round.
            await asyncio.sleep(0)


if __name__ == "__main__":
    main("modal", opened)
