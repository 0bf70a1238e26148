"""The shape of the package: imports point down, and every module keeps to its side."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pytest_sandbox
from pytest_sandbox import shipment
from pytest_sandbox.integrity.syntax import parsed
from pytest_sandbox.options import OPTIONS
from tests.interpreters import interpreter

PACKAGE = Path(pytest_sandbox.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

#: From the top down: a module imports only from rows below its own.
LAYERS = (
    {"plugin", "console"},
    {"mirroring", "fixture", "housekeeping", "testing"},
    {"grading"},
    {"mirror", "api", "conformance"},
    {"verification"},
    {"assemble", "items", "progress", "feed", "hookspecs", "artifacts", "sides", "guard"},
    {"endings"},
    {"integrity", "evidence"},
    {"baseline"},
    {"results", "fallback", "doctor", "split"},
    {"runner"},
    {"prepare", "reaper", "relay", "sealing"},
    {"adoption"},
    {"inside"},
    {"consumer", "plan", "account", "portal", "registry", "patience"},
    {"protection"},
    {
        "environment",
        "interpreters",
        "workspace",
        "store",
        "kept",
        "ledger",
        "ini",
        "durations",
        "shares",
        "witness",
    },
    {"provider"},
    {"gate", "wire", "options", "scratch", "secrecy", "editable", "layout", "shipment", "threads"},
    {"findings"},
    {"errors"},
)


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/__init__", "")


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = parsed(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module == "pytest_sandbox":
                found |= {f"pytest_sandbox.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
    return found


def own(found: set[str]) -> set[str]:
    prefix = "pytest_sandbox."
    return {module[len(prefix) :] for module in found if module.startswith(prefix)}


def calls(path: Path) -> set[str]:
    """Names of ``os`` functions that are called."""
    return {
        node.func.attr
        for node in ast.walk(parsed(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "os"
    }


def layer(module: str) -> int | None:
    for number, modules in enumerate(LAYERS):
        if module in modules:
            return number
    return None


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_down(path: Path) -> None:
    module = name(path)
    mine = layer(module)
    if mine is None:
        return
    code = re.sub(r"if TYPE_CHECKING:\n(?:    .*\n|\n)*", "", path.read_text())
    tree = parsed(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            targets = (
                {alias.name for alias in node.names}
                if node.module == "pytest_sandbox"
                else own({node.module})
            )
            for target in targets:
                other = layer(target)
                inside = target.split(".")[0] == module
                assert inside or other is None or other > mine, f"{module} imports {target}"


def test_every_module_has_a_place() -> None:
    placed = set().union(*LAYERS) | {"__init__", "agent", "providers"}
    assert {name(path).split("/")[0] for path in MODULES} == placed


def test_the_parts_of_a_package_are_its_own() -> None:
    """Others see ``workspace``, not the modules behind it."""
    for path in MODULES:
        package = name(path).split("/")[0]
        for module in own(imports(path)):
            first, _, part = module.partition(".")
            if part and first != "providers":
                assert first == package, f"{name(path)} imports {module}"


def test_nothing_imports_a_provider() -> None:
    for path in MODULES:
        if not name(path).startswith("providers"):
            assert not any(m.startswith("providers") for m in own(imports(path))), path


def test_the_agent_needs_only_the_standard_library_and_pytest() -> None:
    allowed = set(sys.stdlib_module_names) | {"pytest", "_pytest", "xdist", "__future__"}
    modules = [path for path in MODULES if name(path).startswith("agent")]
    assert len(modules) > 10
    for path in modules:
        found = {module.split(".")[0] for module in imports(path)}
        assert found <= allowed, (path, found - allowed)


def test_the_agent_is_shipped_as_the_same_bytes_every_time() -> None:
    made = shipment.agent()
    shipment.zipped.cache_clear()
    assert shipment.agent() == made
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        names = archive.namelist()
        assert names == sorted(names)
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_follower_imports_little() -> None:
    """It starts again whenever a connection breaks."""
    code = (
        "import os, sys; before = set(sys.modules); import pytest_sandbox.agent.follow;"
        "print(*sorted(set(sys.modules) - before))"
    )
    out = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    loaded = {module for module in out.stdout.split() if not module.startswith("pytest_sandbox")}
    assert loaded <= {"__future__"}


def test_platform_modules_stay_in_the_local_engine() -> None:
    for path in MODULES:
        # The shim runs in sandboxes only, which are Linux.
        if name(path).startswith(("providers/local", "providers/remote/shim")):
            continue
        assert not imports(path) & {"fcntl", "pwd", "resource"}, path
        assert not calls(path) & {"fork"}, path


def test_below_the_plan_nothing_asks_for_options_modes_or_providers() -> None:
    words = {option.name for option in OPTIONS if option.name in ("patch", "venv", "setup")}
    assert words  # the list below is by hand; this keeps it honest about where it came from
    below = {
        "runner",
        "prepare",
        "inside",
        "consumer",
        "account",
        "portal",
        "results",
        "wire",
        "provider",
        "relay",
        "gate",
        "patience",
        "store",
        "kept",
        "ledger",
    }
    for path in MODULES:
        if name(path) not in below:
            continue
        tree = parsed(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare):
                literals = {
                    n.value for n in ast.walk(node)
                    if isinstance(n, ast.Constant) and isinstance(n.value, str)
                }  # fmt: skip
                banned = {"local", "host", "docker", "e2b", "modal", "daytona", "mirror", "grade",
                          "fixture"}  # fmt: skip
                assert not literals & banned, (path, literals & banned)
        assert "options" not in own(imports(path)), path


def test_modules_are_small() -> None:
    """A module is one noun."""
    for path in MODULES:
        assert len(path.read_text().splitlines()) <= 400, path


def test_an_unused_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys; import pytest; before = set(sys.modules); import pytest_sandbox.plugin;"
        "print(*sorted(set(sys.modules) - before))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = out.stdout.split()
    heavy = ("anyio", "asyncio", "git", "msgspec", "platformdirs", "e2b", "modal", "daytona")
    assert not [m for m in loaded if m.split(".")[0] in heavy]


def test_what_runs_in_sandboxes_is_python_3_8() -> None:
    """A formatter, or a newer habit, brings syntax that only newer Pythons know."""
    folders = ("agent", "providers/remote/shim")
    paths = [str(path) for folder in folders for path in (PACKAGE / folder).glob("*.py")]
    code = "import sys\nfor name in sys.argv[1:]: compile(open(name).read(), name, 'exec')"
    subprocess.run([interpreter("3.8"), "-c", code, *paths], check=True)
