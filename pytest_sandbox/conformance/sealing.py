"""The part of the conformance class about files that what is not trusted can read only.

Knows only ``provider.py``. A provider may say that it cannot; it must not say that it can.
"""

from __future__ import annotations

from pytest_sandbox.conformance.base import MIB, ConformancePart, Output, Within
from pytest_sandbox.provider import Command, Sandbox

TREE = """
import os
os.makedirs("repo/tests/deep/__pycache__")
os.makedirs("repo/src")
for name in ("setup.cfg", "tests/test_a.py", "tests/deep/test_b.py", "tests/deep/data", "src/a.py"):
    with open("repo/" + name, "w") as file: file.write("as it was")
with open("repo/tests/deep/__pycache__/test_b.pyc", "w") as file: file.write("poison")
"""
#: Prints what it managed to do of what it must not, and "could not" for what it should.
ATTACK = """
import ctypes, os, shutil
sealed = ["setup.cfg", "tests/test_a.py", "tests/deep/test_b.py", "tests/deep/data"]
libc = ctypes.CDLL(None)

def attempt(what, *args):
    try:
        what(*args)
    except OSError:
        return
    print("managed", what, *args)

def new(path):
    with open(path, "w") as file: file.write("new")

def mounted(path):
    for call in (lambda: libc.umount2(path.encode(), 2),
                 lambda: libc.mount(b"none", path.encode(), None, 32 | 4096, None),
                 lambda: libc.mount(b"/tmp", os.path.dirname(path).encode() or b".", None, 4096,
                                    None),
                 lambda: libc.unshare(0x10020000)):
        if call() == 0: return
    raise OSError

for path in sealed:
    with open(path) as file: assert file.read() == "as it was", path
    attempt(open, path, "w")
    attempt(open, path, "a")
    attempt(os.truncate, path, 0)
    attempt(os.chmod, path, 0o777)
    attempt(os.chown, path, os.getuid(), os.getgid())
    attempt(os.unlink, path)
    attempt(os.rename, path, path + ".away")
    new("other")
    attempt(os.replace, "other", path)
    new(os.path.join(os.path.dirname(path), "beside"))
    attempt(os.replace, os.path.join(os.path.dirname(path), "beside"), path)
    fd = os.open(path, os.O_RDONLY)
    attempt(open, f"/proc/self/fd/{fd}", "w")
    attempt(mounted, path)
    try:
        os.link(path, "linked")
    except OSError:
        pass
    else:
        attempt(open, "linked", "w")
for path in ("tests", "tests/deep"):
    attempt(os.rename, path, path + ".away")
    attempt(shutil.rmtree, path)
    cache = path + "/__pycache__"
    assert os.listdir(cache) == []
    attempt(new, cache + "/test_b.cpython-312.pyc")
    attempt(os.rename, cache, cache + ".away")
    attempt(os.rmdir, cache)
attempt(os.rename, os.getcwd(), os.getcwd() + ".away")
for path in sealed:
    with open(path) as file: assert file.read() == "as it was", path

new("src/a.py")
os.rename("src", "lib")
new("tests/deep/more")
os.unlink("tests/deep/more")
os.mkdir("tests/deep/folder")
new("tests/deep/folder/more")
shutil.rmtree("tests/deep/folder")
print("done")
"""


class SealingConformance(ConformancePart):
    """``Sandbox.seal``: said to be in force means in force."""

    def test_what_is_sealed_stays_as_it_is(self, within: Within) -> None:
        async def body(sandbox: Sandbox) -> None:
            make = (*sandbox.demote, self.python, "-c", TREE)
            assert await sandbox.exec(Command(argv=make)) == 0
            paths = ["setup.cfg", "tests/test_a.py", "tests/deep/test_b.py", "tests/deep/data"]
            reason = await sandbox.seal(f"{sandbox.root}/repo", paths)
            assert "\n" not in reason
            if reason:
                return
            output = Output()
            argv = (*sandbox.demote, self.python, "-c", ATTACK)
            status = await sandbox.exec(Command(argv=argv, cwd=f"{sandbox.root}/repo"), output)
            assert (output.stdout.decode(), status) == ("done\n", 0), output.stderr.decode()
            for path in paths:
                data = await sandbox.read_file(f"{sandbox.root}/repo/{path}", limit=MIB)
                assert data == b"as it was"

        within(body)

    def test_what_cannot_be_sealed_is_told(self, within: Within) -> None:
        async def body(sandbox: Sandbox) -> None:
            source = "import os; os.mkdir('repo'); os.symlink('/etc', 'repo/e')"
            make = (*sandbox.demote, self.python, "-c", source)
            assert await sandbox.exec(Command(argv=make)) == 0
            for missing in ("nothing.py", "e/passwd"):
                assert await sandbox.seal(f"{sandbox.root}/repo", [missing])

        within(body)

    def test_signals_of_its_own_end_what_is_demoted(self, within: Within) -> None:
        """The kernel spares the first process of a namespace, which then goes on."""
        source = "import os, signal, sys\nos.kill(os.getpid(), getattr(signal, sys.argv[1]))"

        async def body(sandbox: Sandbox) -> None:
            for name, status in (("SIGSEGV", 139), ("SIGABRT", 134), ("SIGTERM", 143)):
                argv = (*sandbox.demote, self.python, "-c", source, name)
                assert await sandbox.exec(Command(argv=argv)) == status

        within(body)
