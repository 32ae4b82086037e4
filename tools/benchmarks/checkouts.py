"""Another commit's files, for the time of a measurement."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from util.errors import UserError


def git(folder: Path, *arguments: str) -> str:
    """What a git command says.

    Raises:
        UserError: it failed, or there is no git.
    """
    command = ["git", "-C", str(folder), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise UserError("git is needed to measure another commit; it was not found.") from error
    if result.returncode:
        raise UserError(f"`{' '.join(command)}` failed: {result.stderr.strip()}")
    return result.stdout.strip()


def describe(repository: Path) -> str:
    """The commit at hand, with "+" where files have been changed; "unknown" outside of git."""
    try:
        commit = git(repository, "rev-parse", "--short", "HEAD")
        return commit + ("+" if git(repository, "status", "--porcelain", "-uno") else "")
    except UserError:
        return "unknown"


@contextlib.contextmanager
def checkout(repository: Path, commit: str) -> Iterator[Path]:
    """A temporary worktree of a commit; nothing of it is left afterwards.

    Raises:
        UserError: no such commit.
    """
    number = git(repository, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="benchmark_checkout_") as folder:
        path = Path(folder) / "checkout"
        try:
            git(repository, "worktree", "add", "--detach", str(path), number)
            yield path
        finally:
            if path.exists():
                git(repository, "worktree", "remove", "--force", str(path))
            git(repository, "worktree", "prune")
