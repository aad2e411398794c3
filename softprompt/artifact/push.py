"""Uploading an artifact or an ensemble to the Hugging Face hub: its own files and nothing else, in one commit."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArtifactError
from ..version import __version__
from .ensemble import Ensemble, is_ensemble, load_ensemble
from .files import one_line, read_bytes
from .hub import MARK, Address
from .hub_errors import plain_hub_errors
from .source import folder_of
from .store import CARD, CONFIG, ENSEMBLE, MANIFEST, MEMBERS, TENSORS, Artifact, load

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_REPLACED = {TENSORS, CONFIG, MANIFEST, ENSEMBLE, "model.safetensors"}  # of what was pushed before; others' files stay


@dataclass(frozen=True)
class Pushed:
    """Where an artifact is now.

    Attributes:
        url: of the commit, for a browser.
        commit: its hash.
        address: of the artifact, as every place that takes a folder takes it; the commit and the digest pin it.
        digest: of the artifact.
        files: what was uploaded.
    """

    url: str
    commit: str
    address: str
    digest: str
    files: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: getattr(self, name) for name in ("url", "commit", "address", "digest", "files")}


def push(
    artifact: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
) -> Pushed:
    """Upload an artifact to a repository of models on the hub, which is made if it is not there.

    Args:
        artifact: its folder, that of the run that made it, or an ensemble's.
        repo: OWNER/NAME.
        private: make a private repository.
        revision: branch to write to, made if it is not there; None: the main branch.
        message: of the commit.

    Raises:
        ArtifactError: it is damaged, the hub refuses it or is out of reach, or the repository is public and was to be private.
    """
    folder = folder_of(artifact)
    held = load_ensemble(folder) if is_ensemble(folder) else load(folder)
    where = Address.parse(repo if repo.startswith(MARK) else f"{MARK}{repo}")
    if where.revision or where.digest:
        raise ArtifactError(f"{one_line(repo, 200)}: expected OWNER/NAME alone; give a branch as the revision")
    contents = _contents(held, where.repo)
    with plain_hub_errors(str(where), log_in=True):
        commit = _uploaded(where.repo, contents, private, revision, message or f"Upload with softprompt {__version__}")
    address = Address(where.repo, commit.oid, held.digest)
    return Pushed(str(commit.commit_url), commit.oid, str(address), held.digest, sorted(contents))


def _contents(held: Artifact | Ensemble, repo: str) -> dict[str, bytes]:
    """What is uploaded, by its path in the repository."""
    assert held.path is not None, "it was loaded from a folder"
    found = {}
    for name in held.files:
        inside, _, file = name.rpartition("/")
        found[name] = read_bytes(held.path / inside, file, sys.maxsize)  # refuses links out of the folder
    if CARD in found:
        found[CARD] = _card_on_hub(found[CARD].decode("utf-8", "replace"), repo).encode()
    return found


def _card_on_hub(card: str, repo: str) -> str:
    """A card whose head names bases as the hub knows them, and whose code loads the artifact from where it is."""
    from ..base.bundled import BUNDLED  # here: bases take seconds to import

    _, head, text = card.split("---\n", 2) if card.startswith("---\n") else ("", "", card)
    for base in BUNDLED.values():
        head = head.replace(f'base_model: "{base.name}"\n', f'base_model: "{base.hub_id}"\n')
        head = head.replace(f'- "{base.name}"\n', f'- "{base.hub_id}"\n')
    folder = '"path/to/this/folder"'
    # `hub:` is ours; PEFT and transformers take the repository's name
    lines = [
        line.replace(folder, f'"{MARK}{repo}"' if line.startswith("runtime.add(") else f'"{repo}"')
        for line in text.splitlines(keepends=True)
    ]
    return f"---\n{head}---\n{''.join(lines)}" if head else "".join(lines)


def _uploaded(repo: str, contents: dict[str, bytes], private: bool, revision: str | None, message: str) -> Any:
    """The commit.

    Raises:
        ArtifactError: the repository is public and was to be private, or the card's head is not as the hub wants it.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(library_name="softprompt", library_version=__version__)
    api.create_repo(repo, private=private or None, exist_ok=True)
    if private and api.model_info(repo).private is False:
        raise ArtifactError(
            f"{MARK}{repo}: is public already, and --private is for new repositories; make it private on its page first"
        )
    if revision is not None:
        api.create_branch(repo, branch=revision, exist_ok=True)
    gone = [name for name in _pushed_before(api, repo, revision) if name not in contents]
    steps = [CommitOperationAdd(name, content) for name, content in sorted(contents.items())]
    try:
        return api.create_commit(
            repo,
            [*steps, *(CommitOperationDelete(name) for name in gone)],
            commit_message=message,
            revision=revision,
        )
    except ValueError as error:
        if "README.md" not in str(error):
            raise
        raise ArtifactError(
            f"{MARK}{repo}: {one_line(' '.join(str(error).split()), 300)}; edit the head of the artifact's README.md"
        ) from None


def _pushed_before(api: HfApi, repo: str, revision: str | None) -> list[str]:
    """What an earlier push may have left there; nothing where the repository holds no artifact, but perhaps a model."""
    names = api.list_repo_files(repo, revision=revision)
    if not {MANIFEST, ENSEMBLE} & set(names):
        return []
    return [name for name in names if name in _REPLACED or name.startswith(f"{MEMBERS}/")]
