"""Puts the compiled files in the wheel: one wheel for all Pythons, and for this platform."""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        sys.path.insert(0, self.root)
        try:
            from compiling import compile_all
        finally:
            sys.path.remove(self.root)
        self.folder = tempfile.TemporaryDirectory(prefix="witness-")
        for path in compile_all(Path(self.folder.name)):
            build_data["force_include"][str(path)] = f"pytest_sandbox_witness/{path.name}"
        # What the builder of a wheel for others knows: "manylinux_2_28_x86_64".
        platform = os.environ.get("WITNESS_PLATFORM") or sysconfig.get_platform()
        platform = platform.replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self.folder.cleanup()
