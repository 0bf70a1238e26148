"""One port for everything: requests that name a sandbox in a header are for its daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.emulators.control import Log, serve
from tests.emulators.e2b.api import Api
from tests.emulators.e2b.cloud import ApiError, Cloud, cut
from tests.emulators.e2b.envd import Envd
from tests.emulators.faults import Faults, Rule
from tests.emulators.machine import MachineGone, Machines

KEY = "e2b_0123456789abcdef0123456789abcdef01234567"

#: Kills the next program that uses more than so many bytes, as a kernel does that has none left.
_OOM = """
import os, signal, sys, time
end = time.monotonic() + 10
while time.monotonic() < end:
    for name in os.listdir("/proc"):
        try:
            if name.isdigit():
                with open("/proc/" + name + "/statm") as file:
                    resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                if resident > int(sys.argv[1]):
                    os.kill(int(name), signal.SIGKILL)
                    sys.exit()
        except OSError:
            pass
    time.sleep(0.005)
"""


class E2B:
    """The emulated vendor."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.env: Mapping[str, str] = {}
        self.faults = Faults()
        self.log = Log()
        self._api = Api(cloud, self.faults)
        self._envd = Envd(cloud, self.faults)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        for_envd = "E2b-Sandbox-Id" in request.headers
        try:
            if for_envd:
                name = self._envd.name(request)
            else:
                name, do = self._api.find(request)
        except LookupError:
            self.log.unknown.append(f"{request.method} {request.path}")
            return web.json_response({"code": 404, "message": "not found"}, status=404)
        self.log.calls[name] += 1
        if not for_envd and request.headers.get("X-API-KEY") != KEY:
            text = "Invalid API key" if "X-API-KEY" in request.headers else "no API key"
            return _error(401, text)
        rule = await self.faults.hit(name)
        if rule is not None and (answer := await self._fail(rule, request)) is not None:
            return answer
        try:
            if for_envd:
                response = await self._envd.handle(name, request)
            else:
                response = await do()
        except ApiError as error:
            response = _error(error.code, str(error), error.error_code, error.headers)
        except MachineGone:
            return cut(request)
        rule = await self.faults.hit(name, "after")
        if rule is not None and (answer := await self._fail(rule, request)) is not None:
            return answer
        return response

    async def _fail(self, rule: Rule, request: web.BaseRequest) -> web.Response | None:
        """The answer instead; None: the request goes on."""
        if rule.kind == "reset":
            return cut(request)
        if rule.kind in ("lost", "pause"):
            box = self.cloud.boxes.get(request.headers.get("E2b-Sandbox-Id", ""))
            if box is not None and rule.kind == "lost":
                await self.cloud.kill(box)
            elif box is not None:
                self.cloud.pause(box)
            return None
        if rule.kind == "status":
            message = str(rule.args.get("message", "emulated fault"))
            code = str(rule.args.get("error_code", ""))
            return _error(int(rule.args["status"]), message, code, rule.args.get("headers"))
        raise ValueError(f"no such kind of fault: {rule.kind}")

    def state(self) -> dict[str, Any]:
        live = []
        for box in self.cloud.boxes.values():
            live.append({"id": box.id, "internet": box.internet, **box.described()})
        snapshots = [{"id": one.id, "name": one.name} for one in self.cloud.snapshots()]
        return {"live": live, "snapshots": snapshots}

    async def act(self, action: str, arguments: Mapping[str, Any]) -> Any:
        if action == "limits":
            for name in arguments.keys() & {"concurrency", "longest", "page", "deaf"}:
                setattr(self.cloud, name, arguments[name])
            return {}
        box = self.cloud.box(str(arguments["id"]))
        if action == "lost":
            await self.cloud.kill(box)
        elif action == "pause":
            self.cloud.pause(box)
        elif action == "reset":
            self.cloud.cut(box)
        elif action == "token":
            box.token = "expired"
        elif action == "oom":
            above = str(arguments.get("above", 24 << 20))
            killer = await box.machine.start(["python3", "-c", _OOM, above])
            # What is there already dies before the answer; what is not, when it comes.
            await asyncio.wait([killer.status], timeout=0.5)
        else:
            raise ValueError(action)
        return {}


def _error(
    code: int, message: str, error_code: str = "", headers: Mapping[str, str] | None = None
) -> web.Response:
    body: dict[str, Any] = {"code": code, "message": message}
    if error_code:
        body["error_code"] = error_code
    return web.json_response(body, status=code, headers=headers)


@asynccontextmanager
async def opened(state_dir: Path, port: int) -> AsyncIterator[E2B]:
    async with Machines(state_dir) as machines:
        emulated = E2B(Cloud(machines))
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{tail:.*}", emulated.handle)
        runner, url = await serve(application, port)
        emulated.env = {"E2B_API_KEY": KEY, "E2B_API_URL": url, "E2B_SANDBOX_URL": url}
        watching = asyncio.create_task(emulated.cloud.watch())
        try:
            yield emulated
        finally:
            watching.cancel()
            await runner.cleanup()
            await emulated.cloud.close()
