"""One run at a time in a folder."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from util import distributed
from util.errors import UserError


class FolderLock:
    """Keeps other runs out of a folder until it is released or its process ends, however it ends.

    Of several processes of one run the main one holds it.  To be made on all of them.

    Args:
        folder: which exists; the lock is the file .lock in it.

    Raises:
        UserError: another run holds it; on all processes.
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._file: IO[str] | None = None
        holder = self._acquire(folder / ".lock") if distributed.is_main_process() else None
        holder = distributed.broadcast_object(holder)
        if holder is not None:
            raise UserError(
                f"{folder}: another run is training in this folder ({holder}); wait for its end, "
                f"stop it, or name another --output_dir."
            )

    def _acquire(self, path: Path) -> str | None:
        """Take the lock; returns who has it instead."""
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  open as long as it is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            return holder
        except OSError:
            # A file system without locks: better an unguarded run than none.
            file.close()
            return None
        file.truncate(0)
        file.write(f"host {socket.gethostname()}, process {os.getpid()}\n")
        file.flush()
        self._file = file
        return None

    def release(self) -> None:
        """Let others in."""
        if self._file is not None:
            self._file.close()
            self._file = None
