"""The examples do what they say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fixture_repos
from tests.e2e.sessions import own_python
from tests.interpreters import CACHE

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


def a_task(folder: Path) -> Path:
    """A task file for calc's bug; both lists are what the good patch does."""
    loaded = fixture_repos.load("calc")
    repo = loaded.make(folder)
    without = loaded.patch_run("none", "9.0.2")["outcomes"]
    right = loaded.patch_run("good", "9.0.2")["outcomes"]
    fixed = [name for name, outcome in right.items() if without.get(name) != outcome]
    kept = [name for name, outcome in right.items() if without.get(name) == outcome]
    path = folder / "tasks" / "calc-17.toml"
    path.parent.mkdir()
    path.write_text(
        f"[task]\nrepo = '{repo}'\nbase = 'HEAD'\n[environment]\nenv = {{PYTHONPATH = 'src'}}\n"
        f"[tests]\nrestore = ['tests/*']\nfail_to_pass = {json.dumps(fixed)}\n"
        f"pass_to_pass = {json.dumps(kept)}\n"
    )
    return path


def test_patches_graded_in_ci(tmp_path: Path) -> None:
    a_task(tmp_path)
    proposed = tmp_path / "proposed" / "predictions" / "my-agent"
    proposed.mkdir(parents=True)
    patches = fixture_repos.load("calc").patches
    (proposed / "calc-17.patch").write_bytes(patches["good.patch"].read_bytes())
    text = (EXAMPLES / "grade-in-ci" / "grade.yml").read_text()
    grade, report = re.findall(r"run: pytest (.*)$", text, re.MULTILINE)
    page = tmp_path / "page.md"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "GITHUB"))}
    kept |= {**PLUGIN, "PYTEST_SANDBOX_VENV": own_python(), "GITHUB_STEP_SUMMARY": str(page)}
    statuses = []
    for shard in ("1", "2"):
        command = grade.replace("${{ matrix.shard }}", shard).split()
        done = subprocess.run([sys.executable, "-m", "pytest", *command], cwd=tmp_path, env=kept)
        statuses.append(done.returncode)
        if (tmp_path / "results").exists():
            (tmp_path / "results").rename(tmp_path / f"results-{shard}")
    assert statuses == [0, 5]  # there is only one, so the other has none
    (tmp_path / "shards").mkdir()
    (tmp_path / "results-1").rename(tmp_path / "shards" / "results-1")
    page.unlink()
    command = report.split()
    done = subprocess.run([sys.executable, "-m", "pytest", *command], cwd=tmp_path, env=kept)
    assert done.returncode == 0
    assert 'failures="0"' in (tmp_path / "results.xml").read_text()
    assert "calc-17" in page.read_text()


def test_verdicts_as_rewards(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    patches = fixture_repos.load("calc").patches
    named = [patches[f"{name}.patch"] for name in ("good", "wrong", "prose")]
    done = run(EXAMPLES / "agent-reward" / "reward.py", task, *named, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "good.patch: resolved, reward 1.0",
        "prose.patch: malformed, reward 0.0",
        "wrong.patch: unresolved, reward 0.0",
    ]


def test_swe_bench_predictions(tmp_path: Path) -> None:
    loaded = fixture_repos.load("calc")
    repo = loaded.make(tmp_path)
    hidden = (
        "diff --git a/tests/test_hidden.py b/tests/test_hidden.py\nnew file mode 100644\n"
        "--- /dev/null\n+++ b/tests/test_hidden.py\n@@ -0,0 +1,5 @@\n+from calc import div\n+\n+\n"
        "+def test_exact():\n+    assert div(3 * 10**18 + 3, 3) == 10**18 + 1\n"
    )
    row = {
        "instance_id": "someone__calc-17",
        "repo": "someone/calc",
        "version": "1.4",
        "base_commit": fixture_repos.git(repo, "rev-parse", "HEAD").stdout.strip(),
        "patch": loaded.patches["good.patch"].read_text(),
        "test_patch": hidden,
        "FAIL_TO_PASS": json.dumps(["tests/test_hidden.py::test_exact"]),
        "PASS_TO_PASS": "[]",
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    predictions = {
        "someone__calc-17": {
            "model_name_or_path": "my-agent",
            "model_patch": loaded.patches["good.patch"].read_text(),
        }
    }
    (tmp_path / "preds.json").write_text(json.dumps(predictions))
    # GitHub is a folder of this test's.
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "someone").mkdir()
    repo.rename(tmp_path / "someone" / "calc")
    (home / ".gitconfig").write_text(
        f'[url "file://{tmp_path}/"]\ninsteadOf = "https://github.com/"\n[safe]\ndirectory = *\n'
    )
    done = run(
        EXAMPLES / "swe-bench" / "grade_predictions.py", "rows.jsonl", "preds.json",
        "--without-images", cwd=tmp_path, HOME=str(home), XDG_CACHE_HOME=str(CACHE.parent),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resolved             someone__calc-17 [my-agent]" in done.stdout
    assert "resolved 1 of 1" in done.stdout


@pytest.mark.parametrize("name", ["provider_example.py", "agent-pull-request.yml"])
def test_the_documentation_shows_the_files_themselves(name: str) -> None:
    page = {"provider_example.py": "providers.md", "agent-pull-request.yml": "ci.md"}[name]
    assert (EXAMPLES / name).read_text() in (ROOT / "docs" / page).read_text()
