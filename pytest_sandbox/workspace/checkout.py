"""Where a repository's parts lie on this disk, found without running anything it configures.

Reads files only: git itself never sees the repository's own configuration. Knows no trees.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from pytest_sandbox.errors import BadInput
from pytest_sandbox.workspace.gitobjects import ObjectFormat, printable, quoted
from pytest_sandbox.workspace.gitstore import git_executable

_OID: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
# git check-ref-format, as far as it matters for a line of packed-refs.
_BAD_REF: Final = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|[/.]$")
_MAX_REFS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Checkout:
    """A repository's folders. ``root`` is None for a bare one; all paths are absolute."""

    root: Path | None
    git_dir: Path
    #: Differs from ``git_dir`` in a linked worktree: there lie objects, refs, info.
    common: Path
    algorithm: ObjectFormat
    #: False where the file system does not keep the executable bit.
    file_mode: bool

    @property
    def objects(self) -> Path:
        return self.common / "objects"

    @property
    def shallow(self) -> Path | None:
        path = self.common / "shallow"
        return path if path.is_file() else None


def find(path: Path, *, untrusted: bool = False, exact: bool = False) -> Checkout | None:
    """The repository that ``path`` lies in, or with ``exact`` is the top of; None for neither.

    With ``untrusted``, object directories elsewhere (alternates, symbolic links) are refused:
    they would let whoever wrote ``.git`` read other repositories of this machine through us.

    Raises:
        BadInput: no such folder; a ``.git`` that must not be used, with what mends it.
    """
    path = Path(os.path.abspath(path))
    if not path.is_dir():
        raise BadInput(f"{quoted(str(path))} is not a folder")
    path = path.resolve()
    for folder in (path,) if exact else (path, *path.parents):
        dotgit = folder / ".git"
        found = None
        if dotgit.is_symlink():
            raise BadInput(
                f"{dotgit} is a symbolic link, and may show a repository that is not this "
                f"folder's; name that repository itself instead: {_target(dotgit)}"
            )
        if dotgit.is_dir() and _is_git_dir(dotgit):
            found = _checkout(folder, dotgit)
        elif dotgit.is_file():
            found = _checkout(folder, _follow(dotgit, folder))
        elif _is_git_dir(folder):
            found = _checkout(None, folder)
        if found is not None:
            check_owner(found, dotgit if found.root else None)
            if untrusted:
                _check_inside(found)
            return found
    return None


def nested(folder: Path, top: Checkout | None) -> Checkout | None:
    """The repository whose work tree is ``folder``, below the work tree of ``top``.

    Only when its git directory lies in that folder or in that of ``top``: anything else is
    somebody's pointer to a foreign repository and is not followed.
    """
    dotgit = folder / ".git"
    target: Path | None = None
    if dotgit.is_symlink():
        return None
    if dotgit.is_dir():
        target = dotgit
    elif top is not None and dotgit.is_file():
        target = _gitfile(dotgit)
        if target is not None and not target.resolve().is_relative_to(top.common.resolve()):
            return None
    if target is None or not _is_git_dir(target):
        return None
    try:
        return _checkout(folder, target)
    except BadInput:
        return None


def _target(link: Path) -> str:
    return quoted(os.readlink(link))


def _is_git_dir(path: Path) -> bool:
    common = _common(path)
    head = path / "HEAD"
    return (
        (head.is_file() or head.is_symlink())
        and (common / "objects").is_dir()
        and (common / "refs").is_dir()
    )


def _common(git_dir: Path) -> Path:
    text = _text(git_dir / "commondir")
    return Path(os.path.normpath(git_dir / text.strip())) if text else git_dir


def regular(path: Path, *, follow: bool = True) -> IO[bytes]:
    """Open a regular file; a FIFO would hang us and a device never end.

    Raises:
        FileNotFoundError: there is none.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    flags |= 0 if follow else getattr(os, "O_NOFOLLOW", 0)
    try:
        file = os.fdopen(os.open(path, flags), "rb")
    except OSError as error:
        raise FileNotFoundError(path) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FileNotFoundError(path)
    return file


def _text(path: Path, limit: int = 4096) -> str:
    """The beginning of a regular file's text, "" when there is none."""
    try:
        with regular(path) as file:
            return os.fsdecode(file.read(limit))
    except FileNotFoundError:
        return ""


def _gitfile(dotgit: Path) -> Path | None:
    text = _text(dotgit, 65536)
    if not text.startswith("gitdir: "):
        return None
    return Path(os.path.normpath(dotgit.parent / text[8:].rstrip("\r\n")))


def _follow(dotgit: Path, root: Path) -> Path:
    """The git directory of a worktree or submodule, which must name ``root`` in its turn."""
    target = _gitfile(dotgit)
    if target is None:
        raise BadInput(f"{dotgit} is a file, but not one that git wrote: it names no repository")
    if not _is_git_dir(target):
        raise BadInput(
            f"{dotgit} names {quoted(str(target))}, where there is no repository; "
            "`git worktree repair` mends a worktree that was moved"
        )
    back = _text(target / "gitdir", 65536).strip()
    tree = read_config(target / "config").get("core.worktree", "")
    if back and _same(Path(os.path.join(target, back)), dotgit):
        return target
    if tree and _same(Path(os.path.join(target, tree)), root):
        return target
    if target.resolve().is_relative_to(root):
        return target
    raise BadInput(
        f"{dotgit} names the repository {quoted(str(target))}, which does not name this "
        "folder in its turn, so it may be somebody else's; if it is yours, mend it with "
        f"`git worktree repair` or `git --git-dir={printable(str(target))} config "
        f"core.worktree {printable(str(root))}`"
    )


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _checkout(root: Path | None, git_dir: Path) -> Checkout:
    common = _common(git_dir)
    # `git worktree add` makes no other kind; a planted one would show a foreign repository.
    if common != git_dir and git_dir.resolve().parent != common.resolve() / "worktrees":
        raise BadInput(
            f"{git_dir} says that it is a worktree of {quoted(str(common))}, which does not name "
            "this folder in its turn; `git worktree repair`, run there, mends it if it is yours"
        )
    config = read_config(common / "config")
    if config.get("extensions.refstorage", "files") != "files":
        raise BadInput(
            f"{common} keeps its references as {printable(config['extensions.refstorage'])}, "
            "which is not supported yet: `git refs migrate --ref-format=files`"
        )
    sha256 = config.get("extensions.objectformat") == "sha256"
    file_mode = config.get("core.filemode", "true") != "false"
    return Checkout(root, git_dir, common, "sha256" if sha256 else "sha1", file_mode)


def read_config(path: Path) -> dict[str, str]:
    """Last value of each key of one configuration file, keys in lower case, includes ignored."""
    # git's own parser reads it, told to do nothing else; a copy, so that a FIFO cannot hang it.
    text = _text(path, 1 << 20)
    if not text:
        return {}
    done = subprocess.run(
        [git_executable(), "config", "--file", "-", "--no-includes", "--null", "--list"],
        input=os.fsencode(text),
        capture_output=True,
        cwd=os.path.abspath(os.sep),
        env={k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        | {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_DIR": os.devnull},
    )
    if done.returncode:
        raise BadInput(f"{path} cannot be read: {printable(done.stderr)}")
    pairs = (item.partition("\n") for item in os.fsdecode(done.stdout).split("\0") if item)
    return {key.lower(): value if line else "true" for key, line, value in pairs}


def user_setting(name: str) -> list[str]:
    """All values of a setting in the user's and the machine's own git configuration."""
    done = subprocess.run(
        [git_executable(), "config", "--null", "--get-all", name],
        capture_output=True,
        cwd=os.path.abspath(os.sep),
        # A repository around us must not add to it.
        env=os.environ | {"GIT_DIR": os.devnull},
    )
    values = os.fsdecode(done.stdout).split("\0")[:-1]
    # An empty value takes back those before it.
    while "" in values:
        del values[: values.index("") + 1]
    return values


def user_excludes() -> Path:
    """The user's own list of files that git ignores everywhere; it need not exist."""
    named = user_setting("core.excludesFile")
    if named:
        return Path(os.path.expanduser(named[-1]))
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home) / "git" / "ignore"


def check_owner(found: Checkout, dotgit: Path | None) -> None:
    """git's own rule ("dubious ownership"): who owns a repository decides what it contains.

    Raises:
        BadInput: names the folder that is somebody else's, and the command that allows it.
    """
    if not hasattr(os, "geteuid"):
        return
    allowed = {os.geteuid()}
    if os.geteuid() == 0 and os.environ.get("SUDO_UID", "").isdigit():
        allowed.add(int(os.environ["SUDO_UID"]))
    paths = [path for path in (dotgit, found.root, found.git_dir) if path is not None]
    foreign = [path for path in paths if path.lstat().st_uid not in allowed]
    if not foreign:
        return
    place = found.root or found.git_dir
    for safe in user_setting("safe.directory"):
        stem = os.path.expanduser(safe)
        if safe == "*" or _same(Path(stem), place):
            return
        if stem.endswith("/*") and str(place).startswith(stem[:-1]):
            return
    raise BadInput(
        f"git calls this dubious ownership: {foreign[0]} belongs to user "
        f"{foreign[0].lstat().st_uid}, not to you. If you trust it, run "
        f"`git config --global --add safe.directory {printable(str(place), 4096)}`"
    )


def _check_inside(found: Checkout) -> None:
    home = found.common.resolve()
    for path in _links(found.common):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise BadInput(f"{path} is neither a file nor a folder: no git wrote it")
        if not path.resolve().is_relative_to(home):
            raise BadInput(
                f"{path} leads out of the untrusted repository {home}, whose objects would then "
                "be another repository's; clone it anew without --shared or --reference"
            )


def _links(common: Path) -> Iterator[Path]:
    """Whatever may lead out of the object directory, or is no plain file of it."""
    objects = common / "objects"
    yield objects
    for line in _text(objects / "info/alternates", 1 << 20).splitlines():
        if line and not line.startswith("#"):
            yield objects / (line.strip('"'))
    folders = [objects]
    while folders:
        with os.scandir(folders.pop()) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)


def references(found: Checkout) -> Iterator[tuple[str, str]]:
    """(name, hash) of each reference, symbolic ones resolved, odd ones left out."""
    refs = dict(_packed(found.common / "packed-refs"))
    symbolic: dict[str, str] = {}
    top = found.common / "refs"
    for folder, _, files in os.walk(top):
        for name in files:
            path = Path(folder, name)
            ref = "refs/" + path.relative_to(top).as_posix()
            text = _text(path).strip()
            if text.startswith("ref: "):
                symbolic[ref] = text[5:].strip()
            elif _OID.fullmatch(text):
                refs[ref] = text
    for ref, target in symbolic.items():
        if target in refs:
            refs[ref] = refs[target]
    for number, (ref, oid) in enumerate(sorted(refs.items())):
        if number > _MAX_REFS:
            raise BadInput(f"the repository has more than {_MAX_REFS:,} references")
        if not _BAD_REF.search(ref) and ref.isprintable():
            yield ref, oid


def _packed(path: Path) -> Iterator[tuple[str, str]]:
    for line in _text(path, 256 << 20).splitlines():
        oid, space, ref = line.partition(" ")
        if space and ref.startswith("refs/") and _OID.fullmatch(oid):
            yield ref, oid


def pseudo_references(found: Checkout) -> Iterator[tuple[str, str]]:
    """(name, content) of HEAD and its like: ``ref: NAME`` or a hash."""
    for name in ("HEAD", "ORIG_HEAD", "MERGE_HEAD", "FETCH_HEAD", "CHERRY_PICK_HEAD"):
        text = _text(found.git_dir / name).split("\n", 1)[0].strip()
        if text.startswith("ref: refs/") and not _BAD_REF.search(text[5:].strip()):
            yield name, "ref: " + text[5:].strip()
        elif _OID.match(text):
            yield name, text.split()[0]
