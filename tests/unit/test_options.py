"""Options: one declaration each, resolved by one rule."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_sandbox import options
from pytest_sandbox.options import BY_NAME, OPTIONS, OptionError, resolve


def cli(**values: Any) -> Any:
    return lambda name: values.get(name)


def test_the_strongest_place_wins() -> None:
    places: dict[str, Any] = {
        "cli": cli(timeout="1m"),
        "environ": {"PYTEST_SANDBOX_TIMEOUT": "2m"},
        "marker": {"timeout": 180},
        "ini": {"sandbox_timeout": "4m"},
    }
    expected = [60, 120, 180, 240, None]
    for seconds, place in zip(expected, [*places, None], strict=True):
        assert resolve(**places)["timeout"] == seconds
        places.pop(place or "", None)


def test_repeatable_options_replace_and_do_not_add_up() -> None:
    result = resolve(cli=cli(setup=["a", "b"]), ini={"sandbox_setup": ["c"]})
    assert result["setup"] == ("a", "b")


def test_a_variable_holds_one_entry_a_line() -> None:
    environ = {"PYTEST_SANDBOX_SETUP": "pip install -e .\n\nmake data\n"}
    assert resolve(environ=environ)["setup"] == ("pip install -e .", "make data")


def test_the_marker_takes_env_as_a_mapping() -> None:
    assert resolve(marker={"env": {"A": "1"}})["env"] == ("A=1",)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"cli": cli(timeout="soon")}, "--sandbox-timeout: 'soon' is not a time such as"),
        ({"environ": {"PYTEST_SANDBOX_MEMORY": "0"}}, "PYTEST_SANDBOX_MEMORY: '0'"),
        (
            {"cli": cli(memory="4")},
            "--sandbox-memory: '4' is not a size of 32MiB or more, such as 4GiB; "
            "a number alone is bytes",
        ),
        (
            {"marker": {"memory": "1MiB"}},
            "@pytest.mark.sandbox: '1MiB' is not a size of 32MiB or more",
        ),
        ({"cli": cli(disk="1KiB")}, "--sandbox-disk: '1KiB' is not a size of 8MiB or more"),
        ({"marker": {"network": "maybe"}}, "on or off"),
        ({"marker": {"colour": 1}}, "not colour"),
        ({"marker": {"repo": "."}}, "not repo"),
        ({"ini": {"sandbox_history": "all"}}, "ini key sandbox_history"),
        ({"ini": {"sandbox_patch": "x"}}, "not an option that an ini file can set"),
        ({"ini": {"sandbox_tiemout": "3"}}, "sandbox_tiemout"),
        ({"cli": cli(env=["PYTEST_SANDBOX_X=1"])}, "never reaches a sandbox"),
        ({"cli": cli(pytest_args="-k 'a")}, '--sandbox-pytest-args: "-k \'a" is not arguments'),
        ({"cli": cli(env=["1A=1"])}, "NAME or NAME=VALUE"),
        ({"cli": cli(base="")}, "--sandbox-base is empty"),
        ({"cli": cli(setup=["a", ""])}, "--sandbox-setup is empty"),
        ({"environ": {"PYTEST_SANDBOX_BASE": ""}}, "PYTEST_SANDBOX_BASE is empty"),
    ],
)
def test_refused_values_name_their_place(place: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as error:
        resolve(**place)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), (" 3 s", 3)]
)
def test_seconds(text: str, value: float) -> None:
    assert options.seconds(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("1000", 1000), ("1K", 1024), ("512MiB", 512 << 20), ("4G", 4 << 30), ("1.5 GB", 3 << 29)],
)
def test_size(text: str, value: int) -> None:
    assert options.size(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("20USD", (20, None)), ("$0.5", (0.5, None)), ("3 usd", (3, None)), ("5s", (None, 5)),
     ("2h", (None, 7200))],
)  # fmt: skip
def test_money_or_time(text: str, value: tuple[float | None, float | None]) -> None:
    assert options.money_or_time(text) == value


@pytest.mark.parametrize("text", ["5", " 5.0 ", "5.", "0USD", "0s", "USD", "", "5EUR"])
def test_an_amount_without_its_unit_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="with its unit"):
        options.money_or_time(text)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: str(option.name))
def test_every_option_explains_itself(option: options.Option) -> None:
    assert option.help.endswith(".")
    assert option.help[0].isupper()
    assert len(option.help) > 30


def test_the_least_sizes_are_enough_to_start_with() -> None:
    found = resolve(cli=cli(memory="32MiB", disk="8MiB"))
    assert (found["memory"], found["disk"]) == (32 << 20, 8 << 20)


def test_what_an_ini_must_not_decide() -> None:
    """The ini is the repository's own: it names no files of this machine, and no secrets."""
    for name in ("repo", "base", "patch", "venv", "setup_secret", "artifact_dir", "pytest_args"):
        assert not BY_NAME[name].ini


def test_an_empty_value_that_has_a_meaning() -> None:
    assert resolve(cli=cli(pytest_args=""))["pytest_args"] == ""
    assert resolve(environ={"PYTEST_SANDBOX_TIMEOUT": ""})["timeout"] is None


@pytest.mark.parametrize(
    ("values", "mirrors", "grades", "text"),
    [
        ({"patch": "x.diff"}, False, False, "--sandbox-patch does nothing without --sandbox"),
        ({"base": ""}, False, False, "--sandbox-base does nothing without --sandbox"),
        ({"base": "HEAD"}, False, True, "--sandbox-base is not for tasks"),
        ({"shard": "1/2"}, True, False, "--sandbox-shard does nothing without --sandbox-pred"),
        ({"merge": ["x"]}, False, False, "--sandbox-merge does nothing without --sandbox-pred"),
        ({"repeats": "3"}, True, False, "--sandbox-repeats does nothing without --sandbox-derive"),
        ({"patch": "x.diff", "timeout": "3"}, True, False, None),
        ({"timeout": "3", "merge": []}, False, False, None),
        ({"shard": "1/2"}, False, True, None),
    ],
)
def test_what_a_session_would_not_do_is_said(
    values: dict[str, Any], mirrors: bool, grades: bool, text: str | None
) -> None:
    found = options.misplaced(cli(**values), mirrors=mirrors, grades=grades)
    assert found is None if text is None else (found or "").startswith(text)
