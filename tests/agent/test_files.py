"""Trees in, artifacts out: nothing leaves its folder, nothing is followed."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from tests.agent.support import Agent, agent_in


def archive(*members: tuple[str, bytes | str | int | None], executable: str = "") -> bytes:
    """A tar.gz of files (bytes), symbolic links (str), types (int) and folders (None)."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz", errors="surrogateescape") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o755 if name == executable else 0o644
            if content is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            elif isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.type, info.linkname = bytes([content]), "a"
                tar.addfile(info)
    return data.getvalue()


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return agent_in(tmp_path, ("3.8", ("pytest==6.2.5",)))


def unpack(agent: Agent, data: bytes, dest: Path) -> str:
    """What it complains of; "" if it worked."""
    path = agent.control / "tree.tar.gz"
    path.write_bytes(data)
    done = agent.call("unpack", str(dest), "-", str(path), check=False)
    assert (done.returncode == 0) == (not done.stderr), done
    assert done.returncode in (0, 1)
    assert b"Traceback" not in done.stderr
    return done.stderr.decode()


def test_files_links_modes_and_odd_names(tmp_path: Path, agent: Agent) -> None:
    dest = tmp_path / "a" / "dest"
    odd = os.fsdecode(b"odd \xff\n name")
    data = archive(
        ("run.sh", b"x"), ("d/e/f.txt", b"1" * 3_000_000), ("link", "/nowhere"), (odd, b"odd"),
        ("empty", None), ("é", b""), executable="run.sh",
    )  # fmt: skip
    assert unpack(agent, data, dest) == ""
    assert os.access(dest / "run.sh", os.X_OK)
    assert not os.access(dest / "d/e/f.txt", os.X_OK)
    assert (dest / "d/e/f.txt").stat().st_size == 3_000_000
    assert os.readlink(dest / "link") == "/nowhere"
    assert (dest / odd).read_bytes() == b"odd"
    assert (dest / "empty").is_dir()
    # A second archive replaces and deletes, wherever its list stands.
    data = archive(
        ("run.sh", b"y"), ("link", b"now a file"),
        (".pytest-sandbox-deleted", os.fsencode(odd) + b"\0d/e/f.txt\0not/there\0"),
        ("d", b"now a file"),
    )  # fmt: skip
    assert unpack(agent, data, dest) == ""
    assert sorted(os.listdir(dest)) == ["d", "empty", "link", "run.sh", "é"]
    assert (dest / "link").read_bytes() == b"now a file"
    assert not (dest / "link").is_symlink()
    assert not os.access(dest / "run.sh", os.X_OK)


def test_stale_bytecode_goes_with_its_source(tmp_path: Path, agent: Agent) -> None:
    dest = tmp_path / "dest"
    (dest / "p" / "__pycache__").mkdir(parents=True)
    (dest / "q" / "__pycache__").mkdir(parents=True)
    for name in ("p/a.py", "p/__pycache__/a.cpython-38.pyc", "p/__pycache__/b.cpython-38.pyc",
                 "q/a.py", "q/__pycache__/a.cpython-38.pyc"):  # fmt: skip
        (dest / name).write_bytes(b"")
    data = archive((".pytest-sandbox-deleted", b"q/a.py\0"), ("p/a.py", b"1"))
    assert unpack(agent, data, dest) == ""
    assert os.listdir(dest) == ["p"]
    assert os.listdir(dest / "p" / "__pycache__") == ["b.cpython-38.pyc"]


@pytest.mark.parametrize(
    "members",
    [
        [("../out", b"x")],
        [("/abs", b"x")],
        [("a/../../out", b"x")],
        [("a//b", b"x")],
        [("./a", b"x")],
        [("out", "outside"), ("out/file", b"x")],
        [("d/link", "../../outside"), ("d/link/file", b"x")],
        [("file", b"x"), ("file/inner", b"x")],
        [("a", b"x"), ("hard", 0x31)],
        [("device", 0x33)],
        [("fifo", 0x36)],
        [(".pytest-sandbox-deleted", b"../outside/kept\0")],
        [(".pytest-sandbox-deleted", b"/etc/nothing\0")],
        [(".pytest-sandbox-deleted", b"there/kept\0")],
        [("full", b"x")],
        [(".pytest-sandbox-deleted", b"full\0")],
    ],
    ids=str,
)
def test_nothing_leaves_the_folder(
    tmp_path: Path, agent: Agent, members: list[tuple[str, bytes | str | int]]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    dest = tmp_path / "dest"
    (dest / "full").mkdir(parents=True)
    (dest / "full" / "file").write_text("")
    (dest / "there").symlink_to(outside)
    assert unpack(agent, archive(*members), dest)
    assert os.listdir(outside) == ["kept"]
    assert not (tmp_path / "out").exists()


def collected(agent: Agent, *args: str) -> tuple[dict[str, bytes], str]:
    done = agent.call("collect", str(agent.control), *args)
    with tarfile.open(agent.control / "artifacts.tar", errors="surrogateescape") as tar:
        found = {}
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
    return found, done.stderr.decode()


@pytest.mark.parametrize(
    ("globs", "names"),
    [
        (["*.xml"], {"a.xml"}),
        (["**/*.xml"], {"a.xml", "d/b.xml", "d/e/c.xml"}),
        (["d/**"], {"d/b.xml", "d/e/c.xml", "d/e/f.txt"}),
        (["d/*"], {"d/b.xml"}),
        (["d/?.xml", "[ab].xml"], {"d/b.xml", "a.xml"}),
        (["[!b].xml"], {"a.xml"}),
        (["d/**/*.txt"], {"d/e/f.txt"}),
        (["nothing"], set()),
        (["/**"], {"a.xml", "d/b.xml", "d/e/c.xml", "d/e/f.txt", "odd \udcff"}),
        (["../**", "d/../a.xml"], set()),
    ],
)
def test_collect(tmp_path: Path, agent: Agent, globs: list[str], names: set[str]) -> None:
    workspace = tmp_path / "repo"
    (workspace / "d" / "e").mkdir(parents=True)
    for name in ("a.xml", "d/b.xml", "d/e/c.xml", "d/e/f.txt", "odd \udcff"):
        (workspace / name).write_text(name.encode("ascii", "replace").decode())
    os.mkfifo(workspace / "d" / "pipe")
    (workspace / "d" / "link.xml").symlink_to("/etc/passwd")
    (workspace / "linked").symlink_to("/etc")
    (tmp_path / "secret.xml").write_text("secret")
    agent.plan(workspace)
    found, complaints = collected(agent, *globs)
    assert set(found) == names
    assert all(found[name] == name.encode("ascii", "replace") for name in names)
    assert "left out" not in complaints or "link" in complaints


def test_collect_is_limited(tmp_path: Path, agent: Agent) -> None:
    workspace = tmp_path / "repo"
    workspace.mkdir()
    for name in "abcd":
        (workspace / name).write_bytes(b"x" * 1000)
    agent.plan(workspace)
    found, complaints = collected(agent, "--limit", "2500", "*")
    assert sorted(found) == ["a", "b"]
    assert complaints.count("over the limit") == 2
    found, complaints = collected(agent, "--count", "3", "*")
    assert sorted(found) == ["a", "b", "c"]
    assert "too many files" in complaints


def test_wrong_command_line(agent: Agent) -> None:
    for args in ([], ["unpack"], ["follow", "x"], ["nonsense"]):
        done = agent.call(*args, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith(b"usage: ")


def test_run_twice_is_refused(tmp_path: Path, agent: Agent) -> None:
    workspace = tmp_path / "repo"
    workspace.mkdir()
    agent.plan(workspace, env={})
    agent.select([])
    agent.call("run", str(agent.control))
    first = agent.call("follow", str(agent.control), "0").stdout
    assert json.loads(first.splitlines()[-1])["kind"] == "end"
    assert agent.call("supervise", str(agent.control), check=False).returncode != 0
    assert agent.call("follow", str(agent.control), "0").stdout == first


PLUGINS = "[console_scripts]\nrun = evil:run\n\n[ pytest11 ]\n%s\n[other]\na = b\n"


@pytest.mark.parametrize(
    ("before", "after", "there"),
    [
        # As builds write it.
        (None, "[console_scripts]\npytest11-run = pkg:run\n", True),
        (None, PLUGINS % "evil = evil", False),
        (PLUGINS % "own = pkg.plugin", PLUGINS % "own = pkg.plugin", True),
        (PLUGINS % "own = pkg.plugin", PLUGINS % "own = pkg.plugin\nevil = evil", False),
        # What configures the build says that the project is a plugin.
        (None, PLUGINS % "declared = pkg.plugin:Class [extra]", True),
        (None, PLUGINS % "declared = evil", False),
        (None, PLUGINS % "= pkg.plugin", False),
        (None, "#" * (1 << 20) + PLUGINS % "", False),
    ],
)
def test_plugins_that_a_build_makes(
    tmp_path: Path, agent: Agent, before: str | None, after: str, there: bool
) -> None:
    workspace = tmp_path / "tree"
    path = workspace / "src" / "pkg-1.DIST-info" / "entry_points.txt"
    path.parent.mkdir(parents=True)
    (workspace / "pyproject.toml").write_text(
        "[project.entry-points.pytest11]\ndeclared = 'pkg.plugin:Class'\n"
    )
    if before is not None:
        path.write_text(before)
    agent.call("strays", str(workspace), str(agent.control))
    path.write_text(after)
    agent.call("strays", str(workspace), str(agent.control))
    assert path.exists() is there


def test_what_a_build_makes_in_the_place_of_metadata(tmp_path: Path, agent: Agent) -> None:
    workspace, outside = tmp_path / "tree", tmp_path / "outside"
    outside.mkdir()
    (outside / "entry_points.txt").write_text(PLUGINS % "evil = evil")
    folder = workspace / "a.egg-info"
    folder.mkdir(parents=True)
    (workspace / "c.egg-info" / "entry_points.txt").mkdir(parents=True)
    agent.call("strays", str(workspace), str(agent.control))
    (folder / "entry_points.txt").symlink_to(outside / "entry_points.txt")
    (workspace / "b.dist-info").symlink_to(outside)
    (workspace / "setup.py").write_text("# pytest11 evil = evil\n")
    (workspace / "d.egg-info").mkdir()
    os.mkfifo(workspace / "d.egg-info" / "entry_points.txt")
    agent.call("strays", str(workspace), str(agent.control))
    left = {path.relative_to(workspace).as_posix() for path in workspace.rglob("*")}
    assert left == {
        "a.egg-info", "c.egg-info", "c.egg-info/entry_points.txt", "d.egg-info", "setup.py"
    }  # fmt: skip
    assert (outside / "entry_points.txt").exists()
