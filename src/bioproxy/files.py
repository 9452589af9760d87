"""Files that a configuration or a client names: read without waiting for ever, written whole or not at all.

A path in a configuration may lead anywhere: to a FIFO without a writer, to `/dev/zero`, into a network folder whose
server is gone. So every read of such a path, and every look at it, goes through here:

- `read` takes regular files only, opened without blocking and checked once more after that, up to a size.
- Each call to the system is one of a *touch* (`touching`). A call that hangs cannot be ended from outside, and neither
  can the thread that made it. So such work is given to `patiently` (or `away`, on an event loop), which does it in a
  thread of its own and leaves that behind when one touch takes longer than `PATIENCE`: `Stuck` names the path. What is
  slow but goes on, a thousand files or a large one, is waited for.
- As long as a thread hangs at a path, no other touches it: it is `Stuck` at once. So repeated looks leave one thread
  behind and not one each.

These threads are daemons, so the program's end does not wait for them. That nothing else waits is `aio.Threads`' part.
"""

from __future__ import annotations

import errno
import io
import os
import select
import stat as modes
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from bioproxy.errors import BioproxyError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")
P = ParamSpec("P")

PATIENCE = 10.0  # seconds that one call to the file system may take
LOOK = 1.0  # seconds between two looks at where a thread is
BLOCK = 1 << 20  # bytes that are read in one call
INVALID_NAME = 123  # ERROR_INVALID_NAME (winerror.h)
READ_ATTRIBUTES, SHARED, OPEN_EXISTING = 0x80, 7, 3  # winnt.h, fileapi.h
FOLDERS_TOO, NOT_BEHIND_LINKS = 0x0200_0000, 0x0020_0000  # FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT
UNIX_EPOCH = 116_444_736_000_000_000  # in 100 ns since 1601
REFUSALS, PAUSE = 20, 0.025  # how often Windows may refuse to replace a file, and seconds between two tries
UNFINISHED = ".new-"  # begins the name of a file that is being written
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)

calls: dict[int, tuple[str, float]] = {}  # by thread: the path that it touches now, and since when (monotonic)


class Stuck(BioproxyError):
    """The file system does not answer: a call for this path did not come back."""

    code = "file_stuck"

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} does not answer; is it in a network folder whose server is gone?")
        self.path = path


class Irregular(OSError):
    """What a path leads to is no regular file, and reading it might never end."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(errno.EINVAL, "it is no regular file", os.fspath(path))


@contextmanager
def touching(path: str | os.PathLike[str]) -> Iterator[None]:
    """Around one call to the file system, so that `patiently` knows where it hangs. Stuck if another thread does."""
    name, me, now = os.fspath(path), threading.get_ident(), time.monotonic()
    if any(other == name and now - since >= PATIENCE for other, since in list(calls.values())):
        raise Stuck(name)
    calls[me] = name, now
    try:
        yield
    finally:
        calls.pop(me, None)


def patiently(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do `work` in a thread that is left behind if it hangs at a file: Stuck then, else what `work` returns or raises.

    Blocks for as long as `work` goes on. Work that was left behind may still come to its end, long after that.
    """
    future: futures.Future[T] = futures.Future()

    def run(future: futures.Future[T]) -> None:
        try:
            future.set_result(work(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        finally:
            del future  # an error in it keeps this frame

    thread = threading.Thread(target=run, args=(future,), name="files", daemon=True)
    thread.start()
    while not future.done():
        path, since = calls.get(thread.ident or 0, ("", time.monotonic()))
        left = since + PATIENCE - time.monotonic()
        if left <= 0:
            raise Stuck(path)
        futures.wait([future], timeout=min(left, LOOK))
    try:
        return future.result()
    finally:
        del future


async def away(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same without holding up the loop. If the caller is cancelled, `work` goes on in its thread."""
    import asyncio  # 20 ms, which a command line need not wait for

    return await asyncio.to_thread(lambda: patiently(work, *args, **kwargs))


def stat(path: str | os.PathLike[str]) -> os.stat_result:
    """What the system says of what `path` leads to. OSError, Stuck."""
    with touching(path):
        try:
            return os.stat(path)
        except OSError as error:
            if sys.platform == "win32" and error.winerror == INVALID_NAME:  # nothing can be called `x/*` there
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path)) from error
            raise


def changed(path: str | os.PathLike[str], status: os.stat_result, *, follow: bool = True) -> int:
    """When anything of a file with this `status` was changed last, in ns of unix time; it cannot be set. OSError.

    That is its ctime, which on Windows is when it was made: there the file system is asked once more.
    """
    if sys.platform == "win32":
        from ctypes import WinDLL, WinError, byref, c_int64, c_void_p, get_last_error, sizeof

        kernel = WinDLL("kernel32", use_last_error=True)
        kernel.CreateFileW.restype = c_void_p
        name, flags = os.fspath(path), FOLDERS_TOO | (0 if follow else NOT_BEHIND_LINKS)
        handle = c_void_p(kernel.CreateFileW(name, READ_ATTRIBUTES, SHARED, None, OPEN_EXISTING, flags, None))
        if handle.value == c_void_p(-1).value:
            raise WinError(get_last_error())
        times = (c_int64 * 5)()  # FILE_BASIC_INFO: created, read, written, changed, attributes
        try:
            if not kernel.GetFileInformationByHandleEx(handle, 0, byref(times), sizeof(times)):
                raise WinError(get_last_error())
        finally:
            kernel.CloseHandle(handle)
        return (times[3] - UNIX_EPOCH) * 100
    return status.st_ctime_ns


def found(path: str | os.PathLike[str]) -> os.stat_result | None:
    """The same; None if there is nothing. OSError, Stuck."""
    try:
        return stat(path)
    except ValueError:  # no name of a file has a NUL in it
        return None
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


class Regular(io.FileIO):
    """A regular file (with `pipes` a pipe, too) that is open for reading; each call for some of it is a touch."""

    def __init__(self, path: Path, *, pipes: bool = False) -> None:
        self.path = path
        refuse(path, stat(path), pipes=pipes)  # before it is opened: that alone rewinds a tape
        with touching(path):
            super().__init__(os.open(path, FLAGS))
        try:
            status = os.fstat(self.fileno())
            refuse(path, status, pipes=pipes)  # it may have become another one meanwhile
        except BaseException:
            self.close()
            raise
        self.pipe = modes.S_ISFIFO(status.st_mode)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """The next bytes, a block at most: what is slow and goes on must not look as if it hung."""
        with touching(self.path):
            count = super().readinto(memoryview(buffer)[:BLOCK])
            while count is None and self.pipe:
                select.select([self], [], [])
                count = super().readinto(buffer)
        if count is None:  # a file of /proc that waits for news, like /proc/kmsg
            raise Irregular(self.path)
        return count


def refuse(path: Path, status: os.stat_result, *, pipes: bool) -> None:
    """Raise what is to be said of a folder, and Irregular for whatever else is no regular file."""
    if modes.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not (modes.S_ISREG(status.st_mode) or (pipes and modes.S_ISFIFO(status.st_mode))):
        raise Irregular(path)


def opened(path: str | os.PathLike[str], *, pipes: bool = False) -> io.BufferedReader:
    """A regular file to read from.

    `pipes`: a pipe with a writer will do, too, as shells make them (`-config <(...)`). OSError (Irregular for
    what is no file), Stuck.
    """
    return io.BufferedReader(Regular(Path(path), pipes=pipes))


def read(path: str | os.PathLike[str], *, most: int, pipes: bool = False) -> bytes:
    """The content of a regular file; of one that is larger than `most` bytes, one byte more than that."""
    with opened(path, pipes=pipes) as file:
        return file.read(most + 1)


def listed(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """What is in a folder. OSError, Stuck."""
    with touching(folder), os.scandir(folder) as entries:
        return list(entries)


def write_whole(
    path: str | os.PathLike[str],
    data: bytes,
    *,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
    durable: bool = True,
    unfinished: str = UNFINISHED,
) -> None:
    """Replace `path` by `data` in one step: a crash leaves the old file or the new one. OSError, Stuck.

    It is readable by us alone unless `mode` says something else, and on the disk when this returns unless it need not
    be `durable`. `owner` (user and group) gets it if we may give it away. What a crash may leave beside it has a name
    that begins with `unfinished`.
    """
    target = Path(path)
    with touching(target):
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=unfinished)  # made with mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            if owner is not None and sys.platform != "win32":
                with suppress(
                    PermissionError
                ):  # only root gives files away; whoever else may replace one, owns it then
                    os.chown(temporary, *owner)
            if mode != 0o600 and sys.platform != "win32":
                Path(temporary).chmod(mode)
            replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise


def remove_unfinished(folder: Path) -> None:
    """Remove what a crash left of files that were being written in `folder` and the folders in it. OSError, Stuck.

    Whoever calls this is the only one that writes there.
    """
    for path in (folder, *(one for one in folder.iterdir() if one.is_dir())):
        with touching(path):
            for name in os.listdir(path):
                if name.startswith(UNFINISHED):
                    (path / name).unlink(missing_ok=True)


def replace(temporary: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Let a file take another one's place, in one step. OSError.

    Windows refuses as long as anyone has either of them open, and a virus scanner opens what is new: tried again then.
    """
    for _ in range(REFUSALS if sys.platform == "win32" else 0):
        try:
            os.replace(temporary, target)
        except PermissionError:
            time.sleep(PAUSE)
        else:
            return
    os.replace(temporary, target)


def reason(error: OSError) -> str:
    """The system's own words, lower case: `permission denied`."""
    return (error.strerror or str(error)).lower()


def in_short(error: Exception) -> str:
    """Why a file cannot be used, for a message that names it: the system's words, or the error's own."""
    return reason(error) if isinstance(error, OSError) else str(error)
