"""Plain files opened safely, and the system's locks on them, which it drops when a process dies."""

import errno
import os
import stat
from typing import Literal

try:
    import fcntl
except ImportError:  # Windows: there is no telling what other processes do
    fcntl = None

# A link is not followed, a named pipe does not block, Windows changes no line ends
_PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # file systems that have none

Lock = Literal["taken", "held", "none"]


def open_plain(path: os.PathLike[str], flags: int) -> int:
    """A descriptor of a regular file (created with mode 0600); OSError for links, pipes, folders and devices."""
    descriptor = os.open(path, flags | _PLAIN, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return descriptor


def lock_at_once(descriptor: int) -> Lock:
    """Take the only lock on an open file: "taken", "held" by another process, or "none" where there are no locks."""
    try:
        return "taken" if _lock(descriptor, exclusive=True, waits=False) else "none"
    except BlockingIOError:
        return "held"


def wait_for_lock(descriptor: int, *, exclusive: bool) -> None:
    """Take a lock, shared or the only one, when it is free; nothing happens where there are no locks."""
    _lock(descriptor, exclusive=exclusive, waits=True)


def _lock(descriptor: int, *, exclusive: bool, waits: bool) -> bool:
    """Whether the lock was taken: False where system or file system has none. BlockingIOError where it is not free."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if waits else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        return False
    return True
