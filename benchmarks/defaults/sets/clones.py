"""Files of a repository at one commit, read from git's objects: nothing is checked out, and nothing of it is run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from softprompt.errors import DataError
from softprompt.storage import atomic_folder

HOST = "https://github.com"
GIT_MISSING = "git is not installed, and the sets are read from git repositories; install it from https://git-scm.com"


@dataclass(frozen=True)
class Repository:
    """A repository of GitHub at one commit.

    Attributes:
        name: OWNER/NAME.
        commit: 40 hex digits.
    """

    name: str
    commit: str


@dataclass(frozen=True)
class Clone:
    """A repository's commit in a git folder of this machine."""

    repository: Repository
    git_dir: Path

    def text(self, path: str, encoding: str = "utf-8") -> str:
        """The file as it is at the commit; line ends stay as they are.

        Raises:
            DataError: the clone has no such file at the commit, or git is missing.
        """
        commit = self.repository.commit
        answer = _git(self.git_dir, "cat-file", "blob", f"{commit}:{path}")  # `show` would apply filters of the user's
        if answer.returncode:
            raise DataError(
                f"{self.git_dir}: holds no {path} at commit {commit}; move the clone away to have it fetched anew"
            )
        return answer.stdout.decode(encoding)


def open_clone(repository: Repository, folder: Path, say: Callable[[str], None]) -> Clone:
    """The clone FOLDER/OWNER/NAME; where there is none, the one commit is fetched into it as a bare repository.

    Args:
        say: is given a line before a fetch.

    Raises:
        DataError: git is missing, the repository cannot be fetched, or the clone that is there lacks the commit.
    """
    path = folder / repository.name
    if not path.exists():
        _fetch(repository, path, say)
    git_dir = path / ".git" if (path / ".git").exists() else path
    if _git(git_dir, "cat-file", "-e", f"{repository.commit}^{{commit}}").returncode:
        raise DataError(
            f"{path}: is no clone of {repository.name} with the commit {repository.commit}; "
            "fetch the commit there, or move the folder away"
        )
    return Clone(repository, git_dir)


def _fetch(repository: Repository, path: Path, say: Callable[[str], None]) -> None:
    """Fetch the commit alone, without its history.

    Raises:
        DataError: it cannot be fetched; says git's reason and what to do.
    """
    url = f"{HOST}/{repository.name}"
    say(f"fetching {url} at {repository.commit}")
    with atomic_folder(path) as bare:
        made = _git(bare, "init", "--bare", "--quiet", "--template=")
        reason = made.stderr.decode(errors="replace").strip() or _fetched(bare, url, repository.commit)
        if reason:
            raise DataError(
                f"{url}: commit {repository.commit} cannot be fetched ({reason}); connect to the network "
                f"and repeat the command, or clone the repository to {path}"
            )


def _fetched(bare: Path, url: str, commit: str) -> str:
    """Fetch, with git's progress on a terminal; what git said of an error, or nothing."""
    command = [*_command(bare), "fetch", "--progress", "--depth", "1", "--no-tags", url, commit]
    said = ""
    with subprocess.Popen(
        command, env=_environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:  # git ends a line of its progress with CR, which counts as a line's end here
            if line.startswith(("fatal: ", "error: ")):
                said = said or line.partition(" ")[2].strip()
            elif sys.stderr.isatty():
                print(f"\r\033[K{line.strip()}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return (said or f"git ended with exit code {process.returncode}") if process.returncode else ""


def _git(git_dir: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run git on the folder.

    Raises:
        DataError: git is missing.
    """
    command = [*_command(git_dir), *arguments]
    try:
        return subprocess.run(command, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except FileNotFoundError:
        raise DataError(GIT_MISSING) from None


def _command(git_dir: Path) -> list[str]:
    return ["git", f"--git-dir={git_dir}"]  # named, so that git does not look for a repository in folders above


def _environment() -> dict[str, str]:
    """The user's own, with plain English messages and no question for a password."""
    return {**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
