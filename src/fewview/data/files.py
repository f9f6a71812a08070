"""Output files and folders that appear whole or not at all.

Everything is written beside its final name and renamed over it at the end, so an error,
Ctrl-C or `kill -9` in the middle leaves what was there before. A killed run can only leave
a hidden temporary, which the next write to the same name removes.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

_MARK = ".fewview-tmp"
_UNWRITABLE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
}


@contextlib.contextmanager
def replacing_file(path: str | Path) -> Iterator[Path]:
    """Write a file beside `path` and rename it over `path` on success.

    Missing parent folders are made. A symbolic link is followed, not replaced.

    Args:
        path: Final name of the file.

    Yields:
        A name in the same folder that ends like `path`, so that writers which look at the
        suffix (`.nii.gz`) choose the same format. Nothing exists there yet.

    Raises:
        ValueError: If `path` is something other than a file, or has a file as its folder.
        OSError: If the disk is full or the place is not writable; one line with `path`.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        raise ValueError(f"cannot write the file {path}: something that is no file is there")
    with _told_in_one_line(path):
        temporary = _temporary_beside(target)
        try:
            yield temporary
            _flush(temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: str | Path, *, force: bool = False) -> Iterator[Path]:
    """Fill a folder beside `path` and rename it to `path` on success.

    Args:
        path: Final name of the folder.
        force: Replace a folder that is not empty. Its content is removed only after the new
            folder stands in its place.

    Yields:
        An existing, empty folder beside `path`.

    Raises:
        ValueError: If `path` is a file; if it is a folder with content and `force` is not
            set; if it is, or holds, the home folder or the current folder.
        OSError: If the disk is full or the place is not writable; one line with `path`.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_dir():
        raise ValueError(f"cannot write the folder {path}: a file is there")
    _refuse_where_people_live(path, target)
    with _told_in_one_line(path):
        temporary = _temporary_beside(target)  # also brings back what a killed run set aside
        if target.is_dir() and any(target.iterdir()) and not force:
            raise ValueError(f"the folder {path} is not empty; use --force to replace it")
        temporary.mkdir()
        try:
            yield temporary
            _swap(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _refuse_where_people_live(path: str | Path, target: Path) -> None:
    """Refuse a slip of the pen that would replace everything a person has."""
    for kept, word in ((Path.cwd(), "current"), (Path.home(), "home")):
        if kept.resolve().is_relative_to(target):
            raise ValueError(f"refusing to replace {path}: it is or holds the {word} folder")


def _swap(temporary: Path, target: Path) -> None:
    """Put `temporary` in the place of `target`; the old folder is removed last."""
    old = target.with_name(_name(target, "old"))
    if target.exists():
        target.rename(old)
    try:
        temporary.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _temporary_beside(target: Path) -> Path:
    """A fresh hidden name beside `target`; clears what killed runs left there."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"cannot write {target}: a file has the name of its folder") from None
    _clear_stale(target)
    return target.with_name(_name(target, "new"))


def _name(target: Path, role: str) -> str:
    """Hidden name with host and process, so that a stale one can be told; ends like `target`."""
    return f"{_MARK}-{role}-{_host()}-{os.getpid()}-{secrets.token_hex(4)}-{target.name}"


def _host() -> str:
    return re.sub(r"\W", "", socket.gethostname())[:32] or "host"


def _clear_stale(target: Path) -> None:
    """Remove temporaries of dead processes; bring back a folder set aside by a killed swap."""
    pattern = re.compile(
        rf"{re.escape(_MARK)}-(new|old)-{_host()}-(\d+)-[0-9a-f]{{8}}-{re.escape(target.name)}"
    )
    for found in list(target.parent.iterdir()):
        match = pattern.fullmatch(found.name)
        if match is None or _is_running(int(match[2])):
            continue
        if match[1] == "old" and not target.exists():
            found.rename(target)
        elif found.is_dir():
            shutil.rmtree(found, ignore_errors=True)
        else:
            found.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name != "posix":
        return True  # signal 0 would end the process on Windows: rather keep a stale file
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OverflowError:
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    """Reach the disk before the rename: some file systems tell only now that they are full."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def _told_in_one_line(path: str | Path) -> Iterator[None]:
    """Name the output, not the temporary, when writing fails."""
    try:
        yield
    except OSError as error:
        about_input = error.filename is not None and not _is_output(error.filename, path)
        if error.errno not in _UNWRITABLE or about_input:
            raise
        failure = OSError(f"cannot write {path}: {error.strerror}")
        failure.errno = error.errno
        raise failure from error


def _is_output(filename: object, path: str | Path) -> bool:
    """Whether a file named in an error is a temporary of ours or lies above `path`."""
    text = os.fsdecode(filename) if isinstance(filename, str | bytes | os.PathLike) else ""
    return _MARK in text or Path(path).resolve().is_relative_to(Path(text or ".").resolve())
