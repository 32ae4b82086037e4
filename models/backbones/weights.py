"""ImageNet weights from a file, filled in without leaving anything out in silence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from util.checkpoint_content import check_weights
from util.checkpoint_files import read_file
from util.errors import UserError

# Counts the updates of a BatchNorm and serves no forward; old files and frozen norms lack it.
_COUNTER = "num_batches_tracked"


def read_weights(path: str) -> dict[str, Tensor]:
    """Name → tensor of an ImageNet file: its `model` or `state_dict` entry, or all of it.

    Raises:
        FileNotFoundError: no such file.
        UserError: a folder, no named tensors in the file, or numbers that are not finite.
        ValueError: the file is damaged.
    """
    if Path(path).is_dir():
        raise UserError(
            f"{path}: is a folder; expected the file with the ImageNet weights of this backbone "
            "(backbone_pretrained, --swin_pretrain_path). Only Swins find theirs in a folder."
        )
    content = read_file(path)
    state = content.get("model", content.get("state_dict", content))
    tensors = {}
    if isinstance(state, Mapping):
        tensors = {
            name.removeprefix("module."): value
            for name, value in state.items()
            if isinstance(name, str) and isinstance(value, Tensor)
        }
    if not tensors:
        raise UserError(
            f"{path}: expected named tensors, all of the file or its 'model' or 'state_dict' "
            f"entry; found {sorted(map(str, content))[:5]}."
        )
    check_weights(tensors, path)
    return tensors


def fill(
    module: nn.Module,
    state: Mapping[str, Tensor],
    path: str,
    is_derived: Callable[[str], bool] = lambda name: False,
) -> None:
    """Fill a network with weights; every name and shape must fit.

    Args:
        module: the network; changed in place.
        state: its own names → tensors, without the classifier.
        path: of the file, for messages.
        is_derived: True for names of buffers and parameters that a file need not have.

    Raises:
        UserError: lists what is missing, unexpected or of another shape.
    """

    def counts(name: str) -> bool:
        return not name.endswith(_COUNTER) and not is_derived(name)

    own = module.state_dict()
    given = {name: value for name, value in state.items() if counts(name)}
    problems = [f"missing: {name}" for name in own if name not in given and counts(name)]
    problems += [f"unexpected: {name}" for name in given if name not in own]
    problems += [
        f"{name}: shape {tuple(value.shape)}, expected {tuple(own[name].shape)}"
        for name, value in given.items()
        if name in own and value.shape != own[name].shape
    ]
    if problems:
        shown = "\n  ".join(problems[:20])
        raise UserError(
            f"{path}: not the weights of this backbone ({len(problems)} entries differ):\n  "
            f"{shown}\nGive the file of the network that 'backbone' names (backbone_pretrained, "
            "--swin_pretrain_path)."
        )
    module.load_state_dict(given, strict=False)
