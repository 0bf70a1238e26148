"""Secrets of set-up: hidden in output, found in files, in the forms they usually take."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox.errors import BadInput
from pytest_sandbox.secrecy import SCAN, Secrets

SECRET = "p@ss/w0rd+é~1"
values = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=8, max_size=40)


@given(values, st.binary(max_size=5), st.binary(max_size=5))
def test_every_usual_form_is_hidden(value: str, before: bytes, after: bytes) -> None:
    secrets = Secrets({"TOKEN": value})
    raw = value.encode()
    assert raw not in secrets.hide(before + raw + after)
    assert b"***" in secrets.hide(quote(value, safe="").encode())
    assert b"***" in secrets.hide(base64.b64encode(before + raw + after))
    assert b"***" in secrets.hide(base64.urlsafe_b64encode(before + raw + after))


def test_one_secret_in_another() -> None:
    secrets = Secrets({"SHORT": "abcdefgh", "LONG": "abcdefgh-and-more"})
    assert secrets.hidden("x abcdefgh-and-more y abcdefgh z") == "x *** y *** z"


@pytest.mark.parametrize("value", ["", "1", "true", "1234567"])
def test_what_cannot_be_told_from_other_text_is_refused(value: str) -> None:
    with pytest.raises(BadInput, match="TOKEN"):
        Secrets({"TOKEN": value})


def scan(folder: Path, python: str = sys.executable) -> tuple[int, str]:
    orders = Secrets({"TOKEN": SECRET, "OTHER": "something else"}).orders([str(folder)])
    done = subprocess.run(
        [python, "-I", "-S", "-c", SCAN], input=orders, capture_output=True, check=False
    )
    assert done.stderr == b""
    assert SECRET.encode() not in done.stdout
    return done.returncode, done.stdout.decode()


def test_nothing_to_find(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("nothing")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to(".")
    os.mkfifo(tmp_path / "pipe")
    assert scan(tmp_path) == (0, "")
    assert scan(tmp_path / "missing")[0] == 0


def test_where_it_is_found(tmp_path: Path) -> None:
    raw = SECRET.encode()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    places = {
        "plain": raw,
        "deep/er/url": b"https://u:" + quote(SECRET, safe="").encode() + b"@host/",
        "basic": base64.b64encode(b"user:" + raw),
        # Across the border of what is read at once.
        "large": b"x" * ((1 << 20) - 5) + raw + b"y" * 10,
        "unreadable": raw,
        "new\nline": raw,
    }
    for name, content in places.items():
        path = tmp_path / name
        path.write_bytes(content)
        if name == "unreadable":
            path.chmod(0)
        status, said = scan(tmp_path)
        assert status == 3, name
        assert said == f"TOKEN in {str(path)!a}\n"
        path.unlink()
    (tmp_path / "link").symlink_to(f"https:/{quote(SECRET)}/")
    assert scan(tmp_path) == (3, f"TOKEN in '{tmp_path}/link'\n")


def test_an_oddly_named_file_is_looked_at(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff", "wb") as file:
        file.write(SECRET.encode())
    assert scan(tmp_path)[0] == 3
