"""The examples do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fixture_repos
from tests.e2e.sessions import own_python

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
PLUGIN = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_sandbox.plugin"}


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env={**os.environ, **variables},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_the_fixture_and_the_agent_loop(tmp_path: Path) -> None:
    """Together, as the second then starts from the environment of the first."""
    done = run("-m", "pytest", "-v", EXAMPLES / "test_agent_patch.py", cwd=ROOT, **PLUGIN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout

    fixture = fixture_repos.load("calc")
    repo = fixture.make(tmp_path)
    patches = [fixture.patches[f"{name}.patch"] for name in ("bad", "conflict", "good")]
    done = run(EXAMPLES / "agent_loop.py", repo, *patches, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = re.findall(r"^=== (\w+)\.patch: (.*)$", done.stdout, re.MULTILINE)
    assert verdicts == [("bad", "not passed"), ("conflict", "not passed"), ("good", "PASSED")]
    assert "does not apply (conflict)" in done.stdout


def test_the_provider_as_a_plugin(tmp_path: Path) -> None:
    fixture = fixture_repos.load("calc")
    repo = fixture.make(tmp_path)
    plugins = {**PLUGIN, "PYTEST_PLUGINS": "pytest_sandbox.plugin,provider_example"}
    done = run(
        "-m", "pytest", "--sandbox=audited", f"--sandbox-venv={own_python()}", "--collect-only",
        "--sandbox-env=PYTHONPATH=src", cwd=repo, PYTHONPATH=str(EXAMPLES), **plugins,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "agent.pyz" in (repo / "audit.log").read_text()


def test_the_workflow_s_command(tmp_path: Path) -> None:
    text = (EXAMPLES / "agent-pull-request.yml").read_text()
    command = re.search(r"run: pytest-sandbox (.*)$", text, re.MULTILINE)
    assert command is not None
    fixture = fixture_repos.load("calc")
    repo = fixture.make(tmp_path)
    head = fixture_repos.git(repo, "rev-parse", "HEAD").stdout.strip()
    fixture_repos.git(repo, "apply", str(fixture.patches["good.patch"]))
    (repo / "conftest.py").write_text("import os; os.environ['SEEN'] = '1'\n")
    fixture_repos.git(repo, "add", "-A")
    fixture_repos.git(repo, "commit", "-q", "-m", "The agent's")
    bin = Path(sys.executable).parent
    done = subprocess.run(
        ["sh", "-c", f"exec pytest-sandbox {command[1]}"],
        cwd=repo,
        env={
            **os.environ,
            "PATH": f"{bin}:{os.environ['PATH']}",
            "BASE": head,
            "RUNNER_TEMP": str(tmp_path),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'failures="0"' in (tmp_path / "results.xml").read_text()


@pytest.mark.parametrize("name", ["provider_example.py", "agent-pull-request.yml"])
def test_the_documentation_shows_the_files_themselves(name: str) -> None:
    page = {"provider_example.py": "providers.md", "agent-pull-request.yml": "ci.md"}[name]
    assert (EXAMPLES / name).read_text() in (ROOT / "docs" / page).read_text()
