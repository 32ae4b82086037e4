"""The files of a training: settings, records, checkpoints, curves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from util import checkpoint_files, distributed
from util.checkpoint_files import DamagedFileError, read_file
from util.checkpoint_writer import CheckpointWriter
from util.config import Config
from util.errors import UserError
from util.files import link_or_copy, remove_leftovers
from util.folder_lock import FolderLock
from util.logging import LOGGER_NAME, append_json_line, read_json_lines, write_json_lines
from util.trackers import Trackers

logger = logging.getLogger(LOGGER_NAME)


# Checkpoints of a run: the newest ones by their step, and by the epoch those that stay.
_BY_STEP = "checkpoint_step{:08d}.pth"
_BY_STEP_PATTERN = "checkpoint_step*.pth"
LAST = "checkpoint.pth"

T = TypeVar("T")


def read_newest(folder: Path, read: Callable[[Path], T]) -> tuple[Path, T] | None:
    """The newest checkpoint in a run's folder that can be read.

    Damaged ones are passed over with a warning.  Their names tell their order, whatever the clock
    said when they were written.

    Args:
        folder: of a run; need not exist.
        read: reads a file.

    Returns:
        Its path and what `read` made of it; None where there is no checkpoint.

    Raises:
        UserError: there are checkpoints, but all of them are damaged.
    """
    by_epoch = sorted(folder.glob("checkpoint[0-9]*.pth"), reverse=True)
    by_step = sorted(folder.glob(_BY_STEP_PATTERN), reverse=True)
    found = [path for path in (*by_step, folder / LAST, *by_epoch) if path.is_file()]
    found = [*found, *sorted(folder.glob("checkpoint_best*.pth"))]
    for path in found:
        try:
            return path, read(path)
        except DamagedFileError as error:
            logger.warning("Passed over: %s", error)
    if found:
        raise UserError(
            f"{folder}: none of its {len(found)} checkpoints can be read (see above); start again "
            f"with --overwrite, or name a checkpoint from elsewhere with --resume."
        )
    return None


def find_newest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run, the same on all processes; None: there is none.

    Raises:
        UserError: all of its checkpoints are damaged.
    """
    found, error = None, None
    if distributed.is_main_process():
        try:
            newest = read_newest(folder, read_file)
            found = None if newest is None else newest[0]
        except UserError as reason:
            error = str(reason)
    found, error = distributed.broadcast_object((found, error))
    if error is not None:
        raise UserError(error)
    return found


class RunFolder:
    """The files of a training; only the main process writes them.

    They are config.py, log.txt (one JSON line per epoch), the newest checkpoints by their step,
    checkpoint.pth (another name of the newest), others that stay, and what trackers write.
    What an earlier training left stays as it is until this one has something to save.

    Args:
        path: of the folder, which exists.
        config: all settings; stored in config.py and in every checkpoint.
        resumes: the checkpoint after which this training continues; None: it begins.
        overwrite: this training may replace another one.
        trackers: names of the places where curves and images go (`util.trackers`).
        keep_checkpoints: how many of the newest checkpoints stay, at least 1.

    Attributes:
        trackers: of curves and images.

    Raises:
        UserError: the folder holds a training that is neither continued nor to be replaced,
            another process is training in it, or the library of a tracker is missing.
    """

    def __init__(
        self,
        path: Path,
        config: Config,
        *,
        resumes: Path | None = None,
        overwrite: bool = False,
        trackers: Sequence[str] = (),
        keep_checkpoints: int = 2,
    ) -> None:
        self.path = path
        self.config = config
        self.last_checkpoint = path / LAST
        self.keep_checkpoints = keep_checkpoints
        self._log = path / "log.txt"
        self._lock = FolderLock(path)
        self._writer = CheckpointWriter()
        earlier = distributed.broadcast_object(self._training_files())
        continues = resumes is not None and resumes.resolve().parent == path.resolve()
        if earlier and not continues and not overwrite:
            raise UserError(
                f"{path} holds a training already ({', '.join(file.name for file in earlier[:3])}"
                f"{', ...' if len(earlier) > 3 else ''}): name another --output_dir, continue it "
                f"with --resume auto (or --resume and a checkpoint of this folder), or replace it "
                f"with --overwrite."
            )
        self._replaces = bool(earlier) and not continues
        self._kept: list[dict[str, Any]] = []
        self._has_begun = False
        self.trackers = Trackers(trackers, path, config.to_dict(), is_waiting=self._replaces)
        if distributed.is_main_process():
            remove_leftovers(path)
            if not self._replaces:
                config.dump(path / "config.py")

    def records_before(self, epoch: int) -> list[dict[str, Any]]:
        """Records of the finished epochs before `epoch`, from now on the only ones that count."""
        if not self._replaces:
            records = distributed.broadcast_object(read_json_lines(self._log))
            self._kept = [record for record in records if record["epoch"] < epoch]
        return self._kept

    def has_checkpoint(self) -> bool:
        """Whether checkpoint.pth is of this training."""
        return self.last_checkpoint.is_file() and (self._has_begun or not self._replaces)

    def save(self, state: Mapping[str, Any], step: int, *names: str) -> None:
        """Write a checkpoint beside the training.

        Args:
            state: tensors and plain values, copied before this returns.
            step: steps of the whole run so far.
            names: further names under which it stays.

        Raises:
            UserError: this one or, more often, an earlier one cannot be written.
        """
        self._begin()
        path = self.path / _BY_STEP.format(step)

        def write(copy: Mapping[str, Any]) -> None:
            checkpoint_files.save(path, copy)
            for name in (LAST, *names):
                self._name(path, name)
            files = sorted(self.path.glob(_BY_STEP_PATTERN))
            number = files.index(path) + 1
            # Later ones are of a run that this one has gone back behind.
            for file in (*files[: max(0, number - self.keep_checkpoints)], *files[number:]):
                file.unlink()

        self._writer.submit({**state, "config": self.config.to_dict()}, write)

    def keep(self, name: str) -> None:
        """Give the newest checkpoint another name, under which it stays."""
        self._writer.wait()
        self._name(self.last_checkpoint, name)

    def wait(self) -> None:
        """Wait until the checkpoints that were saved are on the disk; see `save`."""
        self._writer.wait()

    def check(self) -> None:
        """Raise what has gone wrong beside the training; see `save`."""
        self._writer.check()

    def _name(self, path: Path, name: str) -> None:
        try:
            link_or_copy(path, self.path / name)
        except OSError as error:
            raise UserError(
                f"{self.path / name}: the checkpoint cannot be written: "
                f"{error.strerror or error}. {path} is complete; free space and go on with "
                f"--resume auto."
            ) from error

    def append(self, record: dict[str, Any]) -> None:
        """Add an epoch's record to log.txt and to the curves."""
        self._begin()
        append_json_line(self._log, record)
        self.trackers.scalars(_curves(record), record["step"])

    def close(self) -> None:
        """Finish everything; others may use the folder then.  See `save` for what it raises."""
        try:
            self._writer.wait()
        finally:
            self.trackers.close()
            self._lock.release()

    def _begin(self) -> None:
        """Once: what an earlier training left and does not count any more goes."""
        if self._has_begun:
            return
        self._has_begun = True
        if self._replaces:
            for file in self._training_files():
                file.unlink()
            for name in ("eval.json", "eval_average.json"):
                (self.path / name).unlink(missing_ok=True)
            self.config.dump(self.path / "config.py")
            self.trackers.start()
        write_json_lines(self._log, self._kept)

    def _training_files(self) -> list[Path]:
        files = sorted(self.path.glob("checkpoint*.pth"))
        if self._log.is_file() and self._log.stat().st_size > 0:
            files.append(self._log)
        return files


def _curves(record: Mapping[str, Any]) -> dict[str, float]:
    """One point per curve: the epoch's losses, and metrics by variant."""
    curves = {f"train/{name}": value for name, value in record["train"].items()}
    for key, suffix in (("eval", ""), ("eval_average", "_average")):
        for variant, metrics in record.get(key, {}).items():
            curves |= {f"{variant}{suffix}/{name}": value for name, value in metrics.items()}
    return curves
