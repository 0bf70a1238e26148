"""Artifacts: whatever tar a sandbox sends, only new files in the new folder come of it."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_sandbox import artifacts
from pytest_sandbox.errors import BadInput, ProtocolError


def tar(*members: tuple[str, bytes], **kw: object) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", errors="surrogateescape") as made:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in kw.items():
                setattr(info, key, value)
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


def special(kind: bytes, name: str, link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        made.addfile(info)
        through = tarfile.TarInfo(f"{name}/inside" if kind == tarfile.SYMTYPE else "plain")
        through.size = 4
        made.addfile(through, io.BytesIO(b"text"))
    return out.getvalue()


def below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_files_arrive_with_names_and_contents_only(tmp_path: Path) -> None:
    data = tar(("a.txt", b"one"), ("deep/er/b", b""), mode=0o4777, uid=4711, mtime=1)
    said = artifacts.extract(data, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert below(folder) == {"a.txt": b"one", "deep/er/b": b""}
    assert said == f"sandbox: 2 artifacts, 3 bytes, in {folder}"
    found = (folder / "a.txt").stat()
    assert found.st_mode & 0o7111 == 0
    assert found.st_uid == os.getuid()
    assert found.st_mtime > 1


def test_no_artifacts(tmp_path: Path) -> None:
    assert artifacts.extract(tar(), tmp_path / "new").startswith("sandbox: 0 artifacts")


@pytest.mark.parametrize(
    "name",
    [
        "../out", "a/../../out", "/tmp/out", "//out", "..", ".", "", "a\\..\\out", "C:out",
        "c:/out", "a\x1b[31mb", "a\nb", "a/b\u202ec", "a/\udcff",
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProtocolError) as error:
        artifacts.extract(tar((name, b"x")), tmp_path / "new")
    assert str(error.value).isprintable()
    assert below(tmp_path) == {}


@pytest.mark.parametrize(
    "data",
    [
        tar(("same", b"1"), ("same", b"2")),
        tar(("same", b"1"), ("./same", b"2")),
        tar(("dir", b"1"), ("dir/file", b"2")),
        tar(("dir/file", b"1"), ("dir", b"2")),
        tar(("n" * 300, b"1")),
        tar(*((f"f{n}", b"") for n in range(10_001))),
    ],
    ids=["twice", "dot", "file-as-folder", "folder-as-file", "long", "many"],
)
def test_clashes_and_floods_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ProtocolError):
        artifacts.extract(data, tmp_path / "new")
    assert all(content in (b"", b"1") for content in below(tmp_path).values())


@pytest.mark.parametrize(
    "data",
    [
        b"no tar",
        tar(("a", b"x" * 2000))[:1100],
        tar(("a", b"1"))[:100],
        b"\0" * 5,
        b"\x1f\x8b" + bytes(600),
    ],
    ids=["junk", "cut", "half-a-header", "short", "gzip"],
)
def test_what_is_no_tar_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ProtocolError):
        artifacts.extract(data, tmp_path / "new")


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
    ],
)  # fmt: skip
def test_links_and_devices_are_left_out(tmp_path: Path, kind: bytes) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"kept")
    artifacts.extract(special(kind, "odd", str(outside)), tmp_path / "new")
    assert below(outside) == {"file": b"kept"}
    found = [path for path in (tmp_path / "new").rglob("*") if not path.is_dir()]
    assert [path.read_bytes() for path in found] == [b"text"]
    assert not any(path.is_symlink() for path in (tmp_path / "new").rglob("*"))


def test_a_sparse_file_is_no_way_to_fill_the_disk(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        info = tarfile.TarInfo("hole")
        info.size = 512
        info.pax_headers = {
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0",
            "GNU.sparse.realsize": str(1 << 40), "GNU.sparse.name": "hole",
        }  # fmt: skip
        made.addfile(info, io.BytesIO(b"1\n1099511627775\n1\n".ljust(512, b"\0")))
    try:
        artifacts.extract(out.getvalue(), tmp_path / "new")
    except ProtocolError:
        pass
    assert sum(len(content) for content in below(tmp_path).values()) < 1 << 20


def file(path: Path) -> None:
    path.write_text("kept")


def folder(path: Path) -> None:
    path.mkdir()


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


@pytest.mark.parametrize("make", [file, folder, dangling])
def test_a_place_that_is_taken_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "taken")
    with pytest.raises(BadInput, match="--sandbox-artifact-dir"):
        artifacts.check_folder(tmp_path / "taken")


def test_a_folder_that_appeared_meanwhile_is_not_written_to(tmp_path: Path) -> None:
    artifacts.check_folder(tmp_path / "new")
    (tmp_path / "new").mkdir()
    with pytest.raises(BadInput, match="--sandbox-artifact-dir"):
        artifacts.extract(tar(("a", b"1")), tmp_path / "new")
    assert below(tmp_path) == {}
