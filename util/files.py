"""Files that are complete or not there at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from util.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    Until then an existing file stays as it is; after an error the temporary file is removed.
    Missing folders are made. The temporary name keeps the suffix: libraries choose a format by it.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        _reach_disk(temporary)
        os.replace(temporary, path)
        _reach_disk(path.parent)
    except OSError as error:
        # Of a full disk an error has no name, or that of the file that was being copied.
        if error.errno in _FULL or (error.errno is not None and error.filename is None):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def written_together(folder: str | os.PathLike) -> Iterator[Path]:
    """A temporary folder whose files move into `folder` when the block ends without an error.

    Until then everything in `folder` stays as it is; after an error nothing of the new is there.
    Files move in the order in which they were written, over others of the same name.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{os.getpid()}.unfinished"
    temporary.mkdir()
    try:
        yield temporary
        files = [path for path in temporary.rglob("*") if not path.is_dir()]
        for file in sorted(files, key=lambda file: file.stat().st_mtime_ns):
            place = folder / file.relative_to(temporary)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place)
    except OSError as error:
        if error.errno is None or isinstance(error, UserError):
            raise
        # Without a name, as of a full disk; or by the name that nobody knows.
        name = str(error.filename or temporary).replace(str(temporary), str(folder))
        raise OSError(error.errno, error.strerror, name) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def link_or_copy(source: Path, path: Path) -> None:
    """Make `path` another name of `source`, or a copy where the file system has one name per file.

    An earlier `path` stays until the new one is complete.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    with written_whole(path) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed while writing left half-written.

    Nobody may be writing into `folder` now.
    """
    for path in folder.iterdir():
        if re.match(r"\.\d+\..", path.name) and path.is_file():
            path.unlink()


def _reach_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)
