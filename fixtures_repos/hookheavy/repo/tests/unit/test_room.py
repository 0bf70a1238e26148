import pytest


def test_put(room, count):
    room.put("nail", count)
    assert room.items == {"screw": 10, "nail": count}


def test_put_more(room):
    room.put("screw", 1)
    assert room.items == {"screw": 11}


@pytest.mark.issue(17)
def test_take_too_many(room):
    with pytest.raises(ValueError, match="not enough of screw: 1 missing"):
        room.take("screw", 11)


@pytest.mark.first
def test_named(room_name, record_property, capsys):
    record_property("room", room_name)
    print("in the", room_name)
    assert capsys.readouterr().out == "in the {}\n".format(room_name)
    print("seen in the report")


@pytest.mark.drop
def test_dropped():
    raise AssertionError("never runs")


@pytest.mark.usefixtures("room")
class TestInClass:
    def test_class_scope(self, class_name):
        assert class_name == "package.module.class"

    def test_last_but_runs_first(self, request):
        assert request.config.getini("spec_timeout") == "5"


def test_order_of_scopes(room, request):
    made = request.config.scopes_made
    assert made.index("session") == 0
    assert made.index("package") < made.index("module") < made.index("class")
