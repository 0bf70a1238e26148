"""Disk usage of a folder whose content is hostile. Standard library only."""

from __future__ import annotations

import os
import stat

#: No project nests so deep; what does is meant to break whoever walks it.
DEEPEST = 400


def disk_usage(folder: str) -> tuple[int, bool]:
    """Bytes on disk below ``folder`` as far as it can be read, and whether all was reached."""
    total, complete = 0, True
    linked: set[tuple[int, int]] = set()
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    stack = [(root, os.listdir(root))]
    while stack:
        fd, names = stack[-1]
        if not names:
            os.close(fd)
            stack.pop()
            continue
        name = names.pop()
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                if (status.st_dev, status.st_ino) in linked:
                    continue
                linked.add((status.st_dev, status.st_ino))
            total += status.st_blocks * 512
            if stat.S_ISDIR(status.st_mode):
                if len(stack) >= DEEPEST:
                    complete = False
                    continue
                child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                stack.append((child, os.listdir(child)))
        except FileNotFoundError:
            continue
        except OSError:
            complete = False
    return total, complete
