"""Spec files as tests, options, ordering, and reports with more in them."""

import pytest

# --doctest-modules would import each of them a second time, under one name.
collect_ignore_glob = ["*conftest.py"]

MAJOR = int(pytest.__version__.split(".")[0])


def pytest_addoption(parser):
    group = parser.getgroup("stock")
    group.addoption("--run-slow", action="store_true", default=False, help="run the slow tests too")
    group.addoption("--room", action="append", default=[], help="a room to test with")
    parser.addini("spec_timeout", "seconds a spec may take", default="1")


def pytest_configure(config):
    config.scopes_made = []
    config.addinivalue_line("markers", "slow: only with --run-slow")
    config.addinivalue_line("markers", "first: runs before everything else")
    config.addinivalue_line("markers", "drop: is deselected")


def pytest_report_header(config):
    return "spec timeout: {} s".format(config.getini("spec_timeout"))


if MAJOR >= 7:

    def pytest_collect_file(file_path, parent):
        if file_path.suffix in (".spec", ".txt"):
            return SpecFile.from_parent(parent, path=file_path)
        return None

else:

    def pytest_collect_file(path, parent):
        if path.ext in (".spec", ".txt"):
            return SpecFile.from_parent(parent, fspath=path)
        return None


def file_of(node):
    return str(node.path) if MAJOR >= 7 else str(node.fspath)


class SpecFile(pytest.File):
    """Each line of the file is ``name: step, step ... = result``."""

    def collect(self):
        with open(file_of(self), encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                line = line.strip()
                if not line or line.startswith("#"):
                    continue
                name, _, rest = line.partition(": ")
                if not rest:
                    raise self.CollectError("line {}: no steps in {!r}".format(number + 1, line))
                yield SpecItem.from_parent(self, name=name, number=number, text=rest)


class SpecFailure(Exception):
    pass


class SpecItem(pytest.Item):
    def __init__(self, *, number, text, **kwargs):
        super().__init__(**kwargs)
        self.number = number
        self.text = text
        if "slow" in self.name:
            self.add_marker(pytest.mark.slow)

    def runtest(self):
        from stock import Room

        room = Room()
        steps, _, wanted = self.text.partition(" = ")
        for step in steps.split(", "):
            verb, name, count = step.split()
            if verb == "skip":
                pytest.skip("the spec says skip")
            getattr(room, verb)(name, int(count))
        print("room:", room)
        self.user_properties.append(("steps", len(steps.split(", "))))
        found = " ".join("{}={}".format(*pair) for pair in sorted(room.items.items()))
        if found != wanted:
            raise SpecFailure(wanted, found)

    def repr_failure(self, excinfo, style=None):
        if isinstance(excinfo.value, SpecFailure):
            return "spec {} line {}:\n   wanted {}\n   found  {}".format(
                self.name, self.number + 1, *excinfo.value.args
            )
        return super().repr_failure(excinfo)

    def reportinfo(self):
        return (self.path if MAJOR >= 7 else self.fspath), self.number, "spec: " + self.name


def pytest_collection_modifyitems(config, items):
    dropped = [item for item in items if item.get_closest_marker("drop")]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
    kept = [item for item in items if not item.get_closest_marker("drop")]
    first = [item for item in kept if item.get_closest_marker("first")]
    rest = [item for item in kept if not item.get_closest_marker("first")]
    items[:] = first + rest[::-1]
    if not config.getoption("--run-slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="needs --run-slow"))


def pytest_generate_tests(metafunc):
    if "room_name" in metafunc.fixturenames:
        metafunc.parametrize("room_name", metafunc.config.getoption("--room") or ["cellar", "attic"])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if call.when == "call":
        report.sections.append(("spec timeout", item.config.getini("spec_timeout")))
        issue = item.get_closest_marker("issue")
        if issue is not None:
            report.user_properties.append(("issue", issue.args[0]))


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line("stock room closed")


@pytest.fixture(scope="session")
def session_room(pytestconfig):
    from stock import Room

    pytestconfig.scopes_made.append("session")
    room = Room()
    yield room
    assert room.items == {}
    print("session room empty")


@pytest.fixture(scope="package")
def package_name(pytestconfig):
    pytestconfig.scopes_made.append("package")
    yield "package"
    print("package done")


@pytest.fixture(scope="module")
def module_name(package_name, pytestconfig):
    pytestconfig.scopes_made.append("module")
    return package_name + ".module"


@pytest.fixture(scope="class")
def class_name(module_name, request, pytestconfig):
    pytestconfig.scopes_made.append("class")
    request.addfinalizer(lambda: print("class done"))
    return module_name + ".class"


@pytest.fixture
def room(session_room, class_name):
    yield session_room
    session_room.items.clear()


@pytest.fixture(autouse=True)
def seen(request, record_property):
    record_property("module", getattr(getattr(request, "module", None), "__name__", "none"))
    yield
