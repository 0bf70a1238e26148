"""The outer world of one sandbox: its namespaces and file system, seen by the supervisor.

Runs once, between the launcher's fork and the server's loop; knows no commands.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import traceback
from typing import Any, NoReturn

from pytest_sandbox.providers.local.inside import linux, seccomp, server
from pytest_sandbox.providers.local.inside.linux import MS_NODEV, MS_NOSUID, MS_RDONLY

ROOT = "/sandbox"
PRIVATE = "/run/pytest-sandbox"

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
_ETC = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives")
_ETC_NETWORK = ("/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/ca-certificates.conf")
_ETC_NETWORK_TEXT = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf")

Request = dict[str, Any]


def refuse(channel: socket.socket, step: str, error: BaseException) -> None:
    number = error.errno if isinstance(error, OSError) else None
    detail = str(error) if number else "".join(traceback.format_exception(error))[-4000:]
    try:
        linux.send_message(channel, {"error": detail, "errno": number, "step": step}, [])
    except OSError:
        pass


def build(request: Request, channel: socket.socket, name_write: int) -> NoReturn:
    """Becomes the sandbox: never returns. Says ``ready`` or ``error`` on ``channel``."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    step = ["namespaces"]
    try:
        os.umask(0o022)
        texts = _texts(request)
        sources = _sources(request)
        uid, gid = os.getuid(), os.getgid()
        spaces = (
            linux.NEWUSER
            | linux.NEWNS
            | linux.NEWPID
            | linux.NEWIPC
            | linux.NEWUTS
            | linux.NEWCGROUP
            | (0 if request["network"] else linux.NEWNET)
        )
        if request["uid"] is not None:
            # As real root: reach every source first, then never be root again.
            uid = gid = request["uid"]
            linux.unshare(linux.NEWNS)
            step[0] = "files"
            _stage(request, sources)
            step[0] = "namespaces"
            hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
            resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            # Changing the uid made /proc/self belong to root, uid_map included.
            linux.prctl(linux.PR_SET_DUMPABLE, 1)
            linux.unshare(spaces)
            _map_user(uid, gid)
        else:
            linux.unshare(spaces)
            step[0] = "uid_map"
            _map_user(uid, gid)
            step[0] = "files"
            _stage(request, sources)
        step[0] = "fork"
        pid = os.fork()
        if pid:
            os.write(name_write, str(pid).encode())
            linux.send_message(channel, {"pid": pid}, [])
            os._exit(0)
        os.close(name_write)
        os.setsid()
        step[0] = "mounts"
        _mount_all(request, sources, texts)
        step[0] = "limits"
        _limit(request)
    except BaseException as error:  # noqa: BLE001 - the process ends here either way
        refuse(channel, step[0], error)
        os._exit(1)
    try:
        server.serve(request, channel)
    finally:
        os._exit(1)


def _map_user(uid: int, gid: int) -> None:
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {uid} 1"),
        ("gid_map", f"0 {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _sources(request: Request) -> dict[str, str]:
    """Where in the sandbox: what of the host, all read-only."""
    wanted = {path: path for path in _ETC if os.path.exists(path)}
    if request["network"]:
        wanted |= {path: path for path in _ETC_NETWORK if os.path.exists(path)}
    for path in _SYSTEM:
        if os.path.isdir(path) and not os.path.islink(path):
            wanted[path] = path
    for path in sorted([*request["prefixes"], *request["expose"]]):
        if not any(path == seen or path.startswith(seen.rstrip("/") + "/") for seen in wanted):
            wanted[path] = path
    wanted |= {f"{PRIVATE}/{inside}": path for inside, path in request["engine"].items()}
    wanted |= {f"/dev/{name}": f"/dev/{name}" for name in _DEVICES}
    return wanted


def _texts(request: Request) -> dict[str, bytes]:
    """Small files of /etc: our own, and the resolver's where there is a network."""
    texts = {
        "/etc/passwd": (
            b"root:x:0:0:supervisor:/tmp/home:/bin/sh\n"
            b"sandbox:x:1000:1000:sandbox:/tmp/home:/bin/sh\n"
            b"nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
        ),
        "/etc/group": b"root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n",
        "/etc/hosts": b"127.0.0.1 localhost sandbox\n::1 localhost\n",
        "/etc/hostname": b"sandbox\n",
        "/etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files dns\n",
        "/etc/resolv.conf": b"",
    }
    for name in ("/etc/os-release", "/etc/localtime", "/etc/protocols", "/etc/services"):
        _read_into(texts, name)
    if request["network"]:
        for name in _ETC_NETWORK_TEXT:
            _read_into(texts, name)
    return texts


def _read_into(texts: dict[str, bytes], name: str) -> None:
    try:
        with open(name, "rb") as file:
            texts[name] = file.read(1 << 20)
    except OSError:
        pass


def _stage(request: Request, sources: dict[str, str]) -> None:
    """Pins every source under the current folder, which needs no path from then on."""
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", request["stage"], "tmpfs", 0, "size=1m,mode=0755")
    os.chdir(request["stage"])
    for name in ("root", "upper"):
        os.mkdir(name)
        # Sized later; the folders must belong to whom the sandbox runs as.
        if request["uid"] is not None:
            os.chown(name, request["uid"], request["uid"])
    for number, source in enumerate(sources.values()):
        _pin(source, f"s{number}")
    for number, source in enumerate(request["layers"]):
        _pin(source, f"l{number}")
    if request["keep"]:
        _pin(request["keep"], "keep")


def _pin(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    linux.bind(source, target)


def _place(target: str, like: str) -> str:
    """An empty folder or file at ``target`` below the new root, to mount over."""
    path = "root" + target
    if os.path.isdir(like):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    return path


def _tmpfs(target: str, size: int, mode: str, flags: int = MS_NOSUID | MS_NODEV) -> None:
    os.makedirs(target, exist_ok=True)
    # Each inode costs about a kilobyte of kernel memory that "size" does not count.
    inodes = max(4096, min(262144, size // 4096))
    linux.mount("tmpfs", target, "tmpfs", flags, f"size={size},nr_inodes={inodes},mode={mode}")


def _mount_all(request: Request, sources: dict[str, str], texts: dict[str, bytes]) -> None:
    linux.mount("tmpfs", "root", "tmpfs", MS_NOSUID | MS_NODEV, "size=16m,mode=0755")
    for path in _SYSTEM:
        if os.path.islink(path):
            os.symlink(os.readlink(path), "root" + path)
    _tmpfs("root/tmp", request["disk"], "1777")
    os.mkdir("root/tmp/home")
    _tmpfs("root" + PRIVATE, request["control_size"], "0755")
    os.mkdir(f"root{PRIVATE}/control", 0o700)
    _tmpfs("root/dev", 1 << 20, "0755", MS_NOSUID)
    for path in ("root/var", "root/root", "root/home"):
        os.mkdir(path)
    os.symlink("/tmp", "root/var/tmp")
    for number, target in enumerate(sources):
        path = _place(target, f"s{number}")
        linux.bind(f"s{number}", path)
        if target.startswith("/dev/"):
            linux.restrict(path, MS_NOSUID)
        else:
            linux.restrict(path, MS_NOSUID | MS_NODEV | MS_RDONLY)
    for target, content in texts.items():
        os.makedirs(os.path.dirname("root" + target), exist_ok=True)
        if not os.path.lexists("root" + target):
            with open("root" + target, "wb") as file:
                file.write(content)
    with open(f"root{PRIVATE}/filter", "wb") as file:
        file.write(seccomp.program(os.uname().machine, pin_cpus=request["cpus"] is not None))
    _devices()
    _processes(request)
    _workspace(request)
    os.chdir("root")
    linux.pivot_to_cwd()
    sealed = linux.MS_REMOUNT | linux.MS_BIND | MS_RDONLY | MS_NOSUID
    linux.mount("none", "/", None, sealed | MS_NODEV)
    linux.mount("none", "/dev", None, sealed)
    linux.set_hostname(b"sandbox")
    if not request["network"]:
        linux.loopback_up()


def _devices() -> None:
    for name, target in (
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ):
        os.symlink(target, f"root/dev/{name}")
    os.mkdir("root/dev/pts")
    linux.mount(
        "devpts",
        "root/dev/pts",
        "devpts",
        MS_NOSUID | linux.MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620",
    )
    _tmpfs("root/dev/shm", 64 << 20, "1777")


def _processes(request: Request) -> None:
    """A /proc of this PID namespace.

    Nothing may be mounted over parts of it, or the inner world could not have one of its own.
    Its settings are root's, whom nobody here is.
    """
    os.mkdir("root/proc")
    # Allowed only while an unmasked /proc is mounted: before the old root goes.
    linux.mount("proc", "root/proc", "proc", MS_NOSUID | MS_NODEV | linux.MS_NOEXEC)
    try:
        # Of this namespace since 6.14, and not writable for us before. 301 is its minimum.
        with open("root/proc/sys/kernel/pid_max", "w") as file:
            file.write(str(max(512, request["processes"] + 256)))
    except OSError:
        pass


def _workspace(request: Request) -> None:
    """The writable folder: a tmpfs, a folder of the host's that is kept, or an overlay."""
    target = "root" + ROOT
    os.mkdir(target)
    upper = "upper"
    if request["keep"]:
        upper = "keep"
    elif request["layers"]:
        _tmpfs(upper, request["disk"], "0755")
    else:
        _tmpfs(target, request["disk"], "0755")
        return
    if request["keep"] and not request["layers"]:
        linux.bind("keep/upper", target)
        linux.restrict(target, MS_NOSUID | MS_NODEV)
        return
    for name in ("upper", "work"):
        os.makedirs(f"{upper}/{name}", exist_ok=True)
    lower = ":".join(f"l{number}" for number in range(len(request["layers"])))
    options = f"userxattr,lowerdir={lower},upperdir={upper}/upper,workdir={upper}/work"
    linux.mount("overlay", target, "overlay", MS_NOSUID | MS_NODEV, options)


def _limit(request: Request) -> None:
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    if request["network"]:
        # With the network the sandbox has the host's abstract sockets: session buses, X11.
        linux.scope_abstract_sockets()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if request["cpus"] is not None:
        allowed = sorted(os.sched_getaffinity(0))
        start = request["cpu_offset"] % len(allowed)
        turned = allowed[start:] + allowed[:start]
        os.sched_setaffinity(0, turned[: max(1, request["cpus"])])
