"""Images that hold the repository: what was built there is used, what differs is put right."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox.grading import Grader, Task, Verdict
from pytest_sandbox.providers.docker import DockerProvider
from pytest_sandbox.providers.docker.provider import IMAGE
from tests import fixture_repos
from tests.containers import Engine

pytestmark = pytest.mark.engine

#: What set-up leaves in an image: packages, an editable install, something built in the checkout.
INSTALL = (
    "set -e; python -m venv /opt/env; /opt/env/bin/python -m pip install -q pytest==9.0.2; "
    "echo /testbed/src > $(echo /opt/env/lib/python*/site-packages)/it.pth; "
    "echo built > /testbed/built.txt"
)
HIDDEN = """\
diff --git a/tests/test_image.py b/tests/test_image.py
new file mode 100644
--- /dev/null
+++ b/tests/test_image.py
@@ -0,0 +1,13 @@
+from pathlib import Path
+
+import calc
+
+
+def test_what_was_built():
+    assert Path("built.txt").read_text() == "built\\n"
+    assert not Path("extra.py").exists()
+    assert Path("/testbed/src/calc").samefile(Path(calc.__file__).parent)
+
+
+def test_exact():
+    assert calc.div(3 * 10**18 + 3, 3) == 10**18 + 1
"""


@pytest.fixture
def images(docker_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    for name, value in docker_engine.env.items():
        monkeypatch.setenv(name, value)
    made: list[str] = []

    def make(repo: Path, base: str = IMAGE) -> str:
        """An image with the repository over what is in ``base``, and with an environment."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(repo, "testbed")
        with docker_engine.client() as client:
            limits = client.create_host_config(network_mode="none")
            command = ["/bin/sh", "-c", INSTALL if base == IMAGE else "true"]
            container = client.create_container(base, command=command, host_config=limits)["Id"]
            client.put_archive(container, "/", buffer.getvalue())
            client.start(container)
            assert client.wait(container)["StatusCode"] == 0, client.logs(container).decode()
            name = f"testbed-{len(made)}"
            client.commit(container, repository=name, tag="latest")
            client.remove_container(container)
        made.append(name)
        return f"{name}:latest"

    yield make
    with docker_engine.client() as client:
        for name in made:
            client.remove_image(f"{name}:latest", force=True)


def grade(task: Task, *names: str) -> list[Verdict]:
    patches = fixture_repos.load("calc").patches

    async def main() -> list[Verdict]:
        async with DockerProvider() as provider, Grader(provider, workers=2) as grader:
            texts = [patches[f"{name}.patch"].read_bytes() for name in names]
            return await asyncio.gather(*(grader.grade(task, text) for text in texts))

    return asyncio.run(main())


def test_the_image_s_own_repository(images: Callable[..., str], tmp_path: Path) -> None:
    repo = fixture_repos.load("calc").make(tmp_path)
    head = fixture_repos.git(repo, "rev-parse", "HEAD").stdout.strip()
    fields: dict[str, Any] = {
        "image": images(repo),
        "workdir": "/testbed",
        "python": "/opt/env/bin/python",
        "test_patch": HIDDEN.encode(),
        "fail_to_pass": ("tests/test_image.py::test_exact",),
        "pass_to_pass": ("tests/test_image.py::test_what_was_built",),
    }
    task = Task(id="calc-17", source="here", repo=str(repo), base=head, **fields)
    good, wrong = grade(task, "good", "wrong")
    assert good.outcome == "resolved", good.reason
    assert wrong.outcome == "unresolved", wrong.reason

    # An image of another commit, with a file too many and a change nobody committed.
    (repo / "extra.py").write_text("")
    fixture_repos.git(repo, "add", "extra.py")
    fixture_repos.git(repo, "commit", "-q", "-m", "Later")
    changed = repo / "src" / "calc" / "__init__.py"
    before = changed.read_text()
    changed.write_text("raise RuntimeError('not the base')\n")
    other = images(repo, task.image)
    changed.write_text(before)
    [again] = grade(replace(task, image=other), "good")
    assert again.outcome == "resolved", again.reason

    # Nothing of the kind is there.
    [broken] = grade(replace(task, workdir="/nowhere"), "good")
    assert broken.outcome == "base_broken"
    assert "/nowhere" in broken.reason
