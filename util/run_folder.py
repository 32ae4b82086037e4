"""The files of a training: settings, records, checkpoints, curves."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from util import checkpoint, distributed
from util.config import Config
from util.errors import UserError
from util.files import written_whole
from util.logging import append_json_line, read_json_lines, write_json_lines


class RunFolder:
    """The files of a training; only the main process writes them.

    They are config.py, log.txt (one JSON line per epoch), checkpoint.pth (the last finished epoch),
    copies of it, and tensorboard/ where asked for.  What an earlier training left stays as it is
    until this one has its first epoch to save.

    Args:
        path: of the folder, which exists.
        config: all settings; stored in config.py and in every checkpoint.
        resumes: this training continues another one.
        overwrite: this training may replace another one.
        tensorboard: write curves for TensorBoard.

    Raises:
        UserError: the folder holds a training that is neither continued nor to be replaced.
    """

    def __init__(
        self,
        path: Path,
        config: Config,
        *,
        resumes: bool = False,
        overwrite: bool = False,
        tensorboard: bool = False,
    ) -> None:
        self.path = path
        self.config = config
        self.last_checkpoint = path / "checkpoint.pth"
        self._log = path / "log.txt"
        earlier = distributed.broadcast_object(self._training_files())
        if earlier and not resumes and not overwrite:
            raise UserError(
                f"{path} holds a training already ({', '.join(file.name for file in earlier[:3])}"
                f"{', ...' if len(earlier) > 3 else ''}): name another --output_dir, continue it "
                f"with --resume auto (or --resume CHECKPOINT), or replace it with --overwrite."
            )
        self._replaces = bool(earlier) and not resumes
        self._kept: list[dict[str, Any]] = []
        self._has_begun = False
        self._tensorboard = tensorboard
        self._board: SummaryWriter | None = None
        if not self._replaces and distributed.is_main_process():
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

    def save(self, state: Mapping[str, Any]) -> None:
        """Write checkpoint.pth."""
        self._begin()
        checkpoint.save(self.last_checkpoint, {**state, "config": self.config.to_dict()})

    def keep(self, name: str) -> None:
        """Copy checkpoint.pth; an earlier file of this name stays until the copy is complete."""
        with written_whole(self.path / name) as temporary:
            shutil.copyfile(self.last_checkpoint, temporary)

    def append(self, record: dict[str, Any]) -> None:
        """Add an epoch's record to log.txt and to the curves."""
        self._begin()
        append_json_line(self._log, record)
        if self._tensorboard:
            if self._board is None:
                # Curves of epochs that an earlier run did after this one are taken back.
                folder = self.path / "tensorboard"
                self._board = SummaryWriter(str(folder), purge_step=record["step"])
            _write_scalars(self._board, record)

    def close(self) -> None:
        """Finish the curves."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _begin(self) -> None:
        """Once: what an earlier training left and does not count any more goes."""
        if self._has_begun:
            return
        self._has_begun = True
        if self._replaces:
            curves = (self.path / "tensorboard").glob("events.out.tfevents.*")
            for file in (*self._training_files(), *curves):
                file.unlink()
            (self.path / "eval.json").unlink(missing_ok=True)
            self.config.dump(self.path / "config.py")
        write_json_lines(self._log, self._kept)

    def _training_files(self) -> list[Path]:
        files = sorted(self.path.glob("checkpoint*.pth"))
        if self._log.is_file() and self._log.stat().st_size > 0:
            files.append(self._log)
        return files


def _write_scalars(board: SummaryWriter, record: Mapping[str, Any]) -> None:
    """One point per curve: training losses and rates, metrics by variant."""
    curves = {f"train/{name}": value for name, value in record["train"].items()}
    curves |= {f"lr/{name}": rate for name, rate in record["lr"].items()}
    for variant, metrics in record.get("eval", {}).items():
        curves |= {f"{variant}/{name}": value for name, value in metrics.items()}
    for name, value in curves.items():
        board.add_scalar(name, value, record["step"])
    board.flush()
