"""What counts, from where: command line, environment, ini; and what the target cannot do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox.options import OPTIONS
from pytest_sandbox.testing import FakeProvider
from tests.fixture_repos import git
from tests.plugin.support import Fake, Stage, all_pass, collected

NEW_TEST = """\
diff --git a/sub/test_new.py b/sub/test_new.py
new file mode 100644
--- /dev/null
+++ b/sub/test_new.py
@@ -0,0 +1,2 @@
+def test_new():
+    pass
"""


@pytest.fixture
def stage(pytester: pytest.Pytester) -> Stage:
    stage = Stage(pytester)
    pytester.path.joinpath("pytest.ini").write_text("[pytest]\nsandbox_timeout = 7m\n")
    pytester.path.joinpath("sub").mkdir()
    pytester.path.joinpath("sub/test_a.py").write_text("def test_a():\n    pass\n")
    git(pytester.path, "add", "-A")
    git(pytester.path, "commit", "-q", "-m", "Start")
    return stage


def fake() -> FakeProvider:
    return FakeProvider(collected("test_a"), all_pass)


def run(stage: Stage, provider: FakeProvider, *args: str) -> pytest.RunResult:
    """As ``Stage.run``, with the provider's name left to the arguments."""
    result = stage.pytester.runpytest_inprocess(*args, plugins=[Fake(provider), *stage.extra])
    assert all(sandbox.closed for sandbox in provider.sandboxes)
    return result


def plan(provider: FakeProvider) -> dict[str, Any]:
    """What the agent in the sandbox was told."""
    *_, sandbox = provider.sandboxes  # the base's is before it
    told: dict[str, Any] = json.loads(sandbox.files["/control/plan.json"])
    return told


# ------------------------------------------------------------------ turning it on


@pytest.mark.parametrize(
    ("args", "remote"),
    [
        (["--sandbox", "sub"], ["sub"]),
        (["sub", "--sandbox"], ["sub"]),
        (["--sandbox", "-k", "test"], []),
        (["--sandbox", "--", "sub"], ["sub"]),
        (["--sandbox", "sub/test_a.py::test_a"], ["sub/test_a.py::test_a"]),
        (["--sandbox", "fake", "sub"], ["sub"]),
        (["--sandbox=fake", "sub"], ["sub"]),
    ],
)
def test_only_a_providers_name_is_taken_for_one(
    stage: Stage, args: list[str], remote: list[str]
) -> None:
    provider = fake()
    run(stage, provider, "--sandbox-provider=fake", *args).assert_outcomes(passed=1)
    assert plan(provider)["args"] == remote


@pytest.mark.parametrize("name", ["x,y", "clout,local", "clout"])
def test_what_follows_an_equals_sign_must_be_one_providers_name(stage: Stage, name: str) -> None:
    provider = fake()
    result = run(stage, provider, f"--sandbox={name}")
    result.stderr.fnmatch_lines(
        [f"*no provider '{name.split(',')[0]}'; known: daytona, docker, e2b, fake, host, local*"]
    )
    assert result.ret == 4
    assert provider.log == []


@pytest.mark.parametrize(
    ("variables", "mirrored"),
    [
        ({"PYTEST_SANDBOX": "fake"}, True),
        ({"PYTEST_SANDBOX": "1", "PYTEST_SANDBOX_PROVIDER": "fake"}, True),
        ({"PYTEST_SANDBOX": "on", "PYTEST_SANDBOX_PROVIDER": "fake"}, True),
        ({"PYTEST_ADDOPTS": "--sandbox=fake"}, True),
        ({"PYTEST_ADDOPTS": "--sandbox", "PYTEST_SANDBOX_PROVIDER": "fake"}, True),
        ({"PYTEST_SANDBOX": "", "PYTEST_SANDBOX_PROVIDER": "fake"}, False),
        ({"PYTEST_SANDBOX": "0", "PYTEST_SANDBOX_PROVIDER": "fake"}, False),
        ({"PYTEST_SANDBOX": "off"}, False),
        ({"PYTEST_SANDBOX_PROVIDER": "fake"}, False),
    ],
)
def test_the_environment_turns_it_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], mirrored: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    provider = fake()
    result = run(stage, provider)
    result.assert_outcomes(passed=1)
    assert bool(provider.log) is mirrored
    if mirrored:
        assert plan(provider)["args"] == []


@pytest.mark.parametrize(
    "keys",
    [
        "sandbox_provider = fake",
        "sandbox = fake",
        "sandbox_timeout = 3m\nsandbox_setup = pip install x",
    ],
)
def test_no_ini_key_turns_it_on(stage: Stage, keys: str) -> None:
    stage.pytester.makefile(".ini", pytest=f"[pytest]\n{keys}\n")
    provider = fake()
    run(stage, provider).assert_outcomes(passed=1, warnings=int(keys == "sandbox = fake"))
    assert provider.log == []


@pytest.mark.parametrize("addopts", ["--sandbox", "--sandbox=fake", "-q --sandbox fake"])
def test_addopts_cannot_turn_it_on(stage: Stage, addopts: str) -> None:
    stage.pytester.makefile(".ini", pytest=f"[pytest]\naddopts = {addopts}\n")
    provider = fake()
    result = run(stage, provider)
    result.stderr.fnmatch_lines(["*addopts turns --sandbox on, which an ini file cannot do*"])
    assert result.ret == 4
    assert provider.log == []


# ------------------------------------------------------------------ the target's ini


@pytest.mark.parametrize(
    "lines",
    [
        ["addopts = --cov=pkg --cov-report=xml"],
        ["addopts = -n 2"],
        ["addopts = --strange-option=3 --strict-config --strict-markers"],
        ["addopts = -k nothing -m nothing --deselect sub --maxfail=1 -p no:doctest"],
        ["addopts = --pdb --fixtures --timeout=1"],
        ["addopts = --ignore=sub --rootdir=/nowhere -c other.ini"],
        ["addopts = -o cache_dir=elsewhere -o unknown=1"],
        ["required_plugins = pytest-of-another-world>=3"],
        ["strange_key = 1", "addopts = --strict-config"],
        ["strict_config = true", "strange_key = 1"],
        ["filterwarnings = error", "markers = slow"],
        ["testpaths = nowhere"],
        ["cache_dir = elsewhere"],
        ["junit_family = nonsense", "console_output_style = nonsense", "usefixtures = nothing"],
        ["norecursedirs = *", "python_files = nothing", "pythonpath = sub"],
        ["xfail_strict = nonsense", "log_level = nonsense", "timeout = nonsense"],
    ],
)
def test_the_targets_ini_has_no_effect_here(stage: Stage, lines: list[str]) -> None:
    stage.pytester.makefile(".ini", pytest="\n".join(["[pytest]", *lines, ""]))
    provider = fake()
    result = run(stage, provider, "--sandbox=fake", "--junitxml=out.xml")
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    assert plan(provider)["args"] == [], "what is in the ini acts there by itself"
    assert not re.search("(?i)warn", result.stdout.str() + result.stderr.str())
    assert not (stage.pytester.path / "elsewhere").exists()


def test_conftest_py_is_not_loaded_here(stage: Stage) -> None:
    (stage.pytester.path / "conftest.py").write_text("raise SystemExit('loaded here')\n")
    (stage.pytester.path / "sub/conftest.py").write_text("raise SystemExit('loaded here')\n")
    provider = fake()
    run(stage, provider, "--sandbox=fake", "sub").assert_outcomes(passed=1)
    assert plan(provider)["args"] == ["sub"], "no --noconftest either: it acts there"


@pytest.mark.parametrize("addopts", ["-p evil", "-pevil", "-q -p evil -p no:doctest"])
def test_a_plugin_in_addopts_is_warned_about(stage: Stage, addopts: str) -> None:
    stage.pytester.makepyfile(evil="print('imported')")
    stage.pytester.syspathinsert()
    stage.pytester.makefile(".ini", pytest=f"[pytest]\naddopts = {addopts}\n")
    result = run(stage, fake(), "--sandbox=fake")
    result.stdout.fnmatch_lines(["warning: the target's addopts made this pytest import evil;*"])
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("addopts = -p not_there", "*not_there*"),
        ("minversion = 99.0", "*requires pytest-99.0*"),
        ("addopts = --maxfail=many", "*--maxfail*"),
    ],
)
def test_what_the_plain_form_cannot_prevent_ends_it_before_anything_starts(
    stage: Stage, line: str, text: str
) -> None:
    """pytest itself looks at these before any plugin; the command pytest-sandbox is immune."""
    stage.pytester.makefile(".ini", pytest=f"[pytest]\n{line}\n")
    provider = fake()
    result = stage.pytester.runpytest_subprocess("--sandbox=host")
    assert result.ret in (1, 4)
    result.stderr.fnmatch_lines([text])
    assert provider.log == []


def test_overrides_of_the_user_act_on_both_sides(stage: Stage) -> None:
    provider = fake()
    result = run(
        stage, provider, "--sandbox=fake", "-o", "cache_dir=mine", "-o", "junit_suite_name=ours",
        "-o", "only_there=1", "--junitxml=out.xml",
    )  # fmt: skip
    result.assert_outcomes(passed=1)
    assert (stage.pytester.path / "mine").is_dir()
    assert 'name="ours"' in (stage.pytester.path / "out.xml").read_text()
    assert plan(provider)["args"] == ["-o", "junit_suite_name=ours", "-o", "only_there=1"]


# ------------------------------------------------------------------ whose options count


def ini_patch(minutes: int) -> str:
    return (
        "--- a/pytest.ini\n+++ b/pytest.ini\n@@ -1,2 +1,3 @@\n [pytest]\n-sandbox_timeout = 7m\n"
        f"+sandbox_timeout = {minutes}m\n+sandbox_network = on\n"
    )


@pytest.mark.parametrize(
    ("args", "variable", "expected"),
    [
        ([], None, 420),
        ([], "8m", 480),
        (["--sandbox-timeout=9m"], "8m", 540),
        (["--sandbox-timeout=9m"], None, 540),
    ],
)
def test_command_line_before_environment_before_ini(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, args: list[str], variable: str | None,
    expected: int,
) -> None:  # fmt: skip
    if variable is not None:
        monkeypatch.setenv("PYTEST_SANDBOX_TIMEOUT", variable)
    provider = fake()
    run(stage, provider, "--sandbox=fake", *args).assert_outcomes(passed=1)
    assert plan(provider)["run_timeout"] == expected


def test_the_working_trees_own_keys_count_without_a_candidate(stage: Stage) -> None:
    (stage.pytester.path / "pytest.ini").write_text("[pytest]\nsandbox_timeout = 11m\n")
    provider = fake()
    run(stage, provider, "--sandbox=fake").assert_outcomes(passed=1)
    assert plan(provider)["run_timeout"] == 660


@pytest.mark.parametrize("way", ["patch", "base"])
def test_a_candidate_cannot_change_the_options(stage: Stage, way: str) -> None:
    (stage.pytester.path / "fix.diff").write_text(ini_patch(60))
    args = ["--sandbox-patch=fix.diff"]
    if way == "base":
        git(stage.pytester.path, "apply", "fix.diff")
        args = ["--sandbox-base=HEAD"]
    provider = fake()
    run(stage, provider, "--sandbox=fake", *args).assert_outcomes(passed=1)
    assert plan(provider)["run_timeout"] == 420
    assert all(not spec.network for kind, spec in provider.log if kind == "create")


@pytest.mark.parametrize(
    ("ini", "text"),
    [
        ("sandbox_timeout = soon", "ini key sandbox_timeout: 'soon' is not a time"),
        ("sandbox_patch = x.diff", "sandbox_patch, which is not an option that an ini"),
        ("sandbox_venv = /evil", "sandbox_venv, which is not an option that an ini"),
        ("sandbox_setup_secret = TOKEN", "sandbox_setup_secret, which is not"),
        ("sandbox_timout = 3", "sandbox_timout, which is not"),
    ],
)
def test_keys_that_cannot_be_are_refused(stage: Stage, ini: str, text: str) -> None:
    stage.pytester.makefile(".ini", pytest=f"[pytest]\n{ini}\n")
    provider = fake()
    result = run(stage, provider, "--sandbox=fake")
    assert text in result.stderr.str()
    assert result.ret == 4
    assert provider.log == []


def test_help_is_in_whole_sentences(stage: Stage) -> None:
    result = stage.pytester.runpytest_inprocess("--help")
    text = re.sub(r"\s+", " ", result.stdout.str())
    for option in OPTIONS:
        assert option.help.endswith(".")
        assert option.help[0].isupper() or option.help.startswith("'")
        assert f"{option.flag}={option.metavar} {option.help} [{option.variable}]" in text
    for flag in ("--sandbox=[PROVIDER]", "--sandbox-reap", "--sandbox-cache={list,clear}"):
        assert re.search(re.escape(flag) + r" [A-Z][^-]+\.", text), flag


# ------------------------------------------------------------------ the patch

BAD_PATCHES = {
    "empty": ("", 23, "*empty*"),
    "prose": ("I would change the test so that it passes.\nThat is all.\n", 20, "*"),
    "truncated": (NEW_TEST.replace("+1,2", "+1,9"), 20, "*"),
    "conflict": (ini_patch(8).replace("= 7m", "= 70m"), 21, "*pytest.ini*"),
    "escape": (NEW_TEST.replace("sub/test_new.py", "../test_new.py"), 22, "*test_new.py*"),
    "git": (NEW_TEST.replace("sub/test_new.py", ".git/hooks/pre-commit"), 22, "*.git*"),
}


@pytest.mark.parametrize("name", BAD_PATCHES)
def test_a_patch_that_cannot_be_used_costs_nothing(stage: Stage, name: str) -> None:
    text, status, message = BAD_PATCHES[name]
    (stage.pytester.path / "fix.diff").write_text(text)
    provider = fake()
    result = run(stage, provider, "--sandbox=fake", "--sandbox-patch=fix.diff")
    assert result.ret == status
    result.stderr.fnmatch_lines([f"ERROR: {message}"])
    assert "fix.diff" in result.stderr.str()
    assert provider.log == []


def test_a_patch_that_is_not_there(stage: Stage) -> None:
    provider = fake()
    result = run(stage, provider, "--sandbox=fake", "--sandbox-patch=fix.diff")
    result.stderr.fnmatch_lines(["ERROR: --sandbox-patch fix.diff: No such file or directory"])
    assert result.ret == 4
    assert provider.log == []


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--sandbox", "--sandbox-base="], "--sandbox-base is empty"),
        (["--sandbox", "--sandbox-patch", ""], "--sandbox-patch is empty"),
        (["--sandbox-patch=fix.diff"], "--sandbox-patch does nothing without --sandbox"),
        (["--sandbox", "--sandbox-shard=1/2"], "--sandbox-shard does nothing without"),
    ],
)
def test_a_candidate_that_would_not_run_is_no_candidate_that_passes(
    stage: Stage, args: list[str], text: str
) -> None:
    provider = fake()
    result = run(stage, provider, *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {text}*"])
    assert not provider.sandboxes


@pytest.mark.parametrize("capture", ["fd", "sys", "no"])
def test_a_patch_on_standard_input(stage: Stage, capture: str) -> None:
    command = [
        sys.executable, "-m", "pytest", "--sandbox=host", "--sandbox-patch", "-",
        f"--capture={capture}", "sub/test_new.py",
    ]  # fmt: skip
    # Conflicts with the base, so what it says shows that the patch was read, without a run.
    done = subprocess.run(
        command, cwd=stage.pytester.path, input=BAD_PATCHES["conflict"][0], capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 21
    assert "standard input" in done.stderr


def test_a_file_that_only_the_patch_has_can_be_named(stage: Stage) -> None:
    (stage.pytester.path / "fix.diff").write_text(NEW_TEST)
    provider = fake()
    args = ["--sandbox-patch=fix.diff", "sub/test_new.py::test_new"]
    result = run(stage, provider, "--sandbox=fake", *args)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["sandbox: fix.diff on HEAD*"])
    assert plan(provider)["args"] == ["sub/test_new.py::test_new"]
    assert not (stage.pytester.path / "sub/test_new.py").exists()


# ------------------------------------------------------------------ where it is run


def places(stage: Stage, tmp_path: Path) -> dict[str, tuple[Path, Sequence[str]]]:
    top = stage.pytester.path
    return {
        "top": (top, ["sub/test_a.py"]),
        "sub": (top / "sub", ["test_a.py"]),
        "up": (top / "sub", ["../sub/test_a.py"]),
        "absolute": (tmp_path, [f"--sandbox-repo={top}", str(top / "sub/test_a.py")]),
        "repo": (tmp_path, [f"--sandbox-repo={top}", "sub/test_a.py"]),
        "relative": (top.parent, [f"--sandbox-repo={top.name}", "sub/test_a.py"]),
        "as shown": (
            top.parent,
            [f"--sandbox-repo={top.name}", f"{top.name}/sub/test_a.py::test_a"],
        ),
    }


@pytest.mark.parametrize(
    ("place", "cwd", "argument"),
    [
        ("top", "", "sub/test_a.py"),
        ("sub", "/sub", "test_a.py"),
        ("up", "/sub", "../sub/test_a.py"),
        ("absolute", "", "sub/test_a.py"),
        ("repo", "", "sub/test_a.py"),
        ("relative", "", "sub/test_a.py"),
        ("as shown", "", "sub/test_a.py::test_a"),
    ],
)
def test_from_anywhere(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory,
    place: str, cwd: str, argument: str,
) -> None:  # fmt: skip
    where, args = places(stage, tmp_path_factory.mktemp("elsewhere"))[place]
    monkeypatch.chdir(where)
    provider = fake()
    run(stage, provider, "--sandbox=fake", *args).assert_outcomes(passed=1)
    told = plan(provider)
    assert told["args"] == [argument]
    assert told["cwd"] == told["workspace"] + cwd
    assert told["run_timeout"] == 420


def test_the_ini_of_the_folder_one_is_in_is_not_the_targets(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    here = tmp_path_factory.mktemp("elsewhere")
    (here / "pytest.ini").write_text("[pytest]\nsandbox_timeout = 1m\naddopts = --strange\n")
    monkeypatch.chdir(here)
    provider = fake()
    result = run(stage, provider, "--sandbox=fake", f"--sandbox-repo={stage.pytester.path}")
    result.stdout.fnmatch_lines([f"rootdir: {stage.pytester.path}"])
    assert plan(provider)["run_timeout"] == 420


@pytest.mark.parametrize("option", ["--sandbox-patch", "--sandbox-artifact-dir", "--sandbox-repo"])
def test_the_value_of_an_option_does_not_make_the_rootdir(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory, option: str
) -> None:
    """pytest looks for it in all arguments before it knows which of them are values."""
    value = tmp_path_factory.mktemp("elsewhere") / "fix.diff"
    value.write_text(NEW_TEST)
    if option == "--sandbox-repo":
        value = stage.pytester.path
    provider = fake()
    result = run(stage, provider, "--sandbox=fake", option, str(value), "-v", "-rA")
    result.stdout.fnmatch_lines([
        f"rootdir: {stage.pytester.path}",
        "test_a.py::test_a PASSED*",
        "PASSED test_a.py::test_a",
    ])  # fmt: skip


def test_a_bare_repository_needs_a_base(stage: Stage, tmp_path_factory: Any) -> None:
    bare = tmp_path_factory.mktemp("bare") / "project.git"
    git(stage.pytester.path, "clone", "-q", "--bare", ".", str(bare))
    provider = fake()
    result = run(stage, provider, "--sandbox=fake", f"--sandbox-repo={bare}")
    result.stderr.fnmatch_lines(["ERROR: *bare*--sandbox-base"])
    assert result.ret == 4
    assert provider.log == []
    result = run(stage, provider, "--sandbox=fake", f"--sandbox-repo={bare}", "--sandbox-base=main")
    assert result.ret == 4 or result.parseoutcomes() == {"passed": 1}
    provider = fake()
    args = [f"--sandbox-repo={bare}", "--sandbox-base=HEAD", "sub/test_a.py"]
    run(stage, provider, "--sandbox=fake", *args).assert_outcomes(passed=1)
    assert plan(provider)["run_timeout"] == 420


# ------------------------------------------------------------------ what is written here


def test_a_report_is_not_written_through_a_link_of_the_checkout(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "precious").write_text("kept")
    (stage.pytester.path / "out.xml").symlink_to(outside / "precious")
    (stage.pytester.path / "out").symlink_to(outside)
    for args, option in (
        (["--junitxml=out.xml"], "--junitxml"),
        (["--junitxml=out/new.xml"], "--junitxml"),
        (["--sandbox-artifact=*", "--sandbox-artifact-dir=out/x"], "--sandbox-artifact-dir"),
    ):
        provider = fake()
        result = run(stage, provider, "--sandbox=fake", *args)
        result.stderr.fnmatch_lines([f"ERROR: {option} *symbolic link*"])
        assert result.ret == 4
        assert provider.log == []
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "kept"
