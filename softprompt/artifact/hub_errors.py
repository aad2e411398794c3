"""What goes wrong between us and the Hugging Face hub, in one line that says what to do and holds no token."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from ..errors import ArtifactError, SoftpromptError
from .files import one_line

_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_TOKEN = re.compile(r"hf_\w+")


def why_unreachable(error: Exception) -> str | None:
    """Why the hub gives no answer now, so that what is in the cache may stand in; None if it gave one.

    Empty where the user wants it so (`HF_HUB_OFFLINE`).
    """
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return ""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return f"it answers {status}" if status == 429 or status >= 500 else None
    # the client that the hub's package uses has another name in each of its major versions
    network = type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "requests", "urllib3")
    return type(error).__name__ if network or isinstance(error, (ConnectionError, TimeoutError)) else None


@contextlib.contextmanager
def plain_hub_errors(where: str, log_in: bool = False) -> Iterator[None]:
    """Turn errors of the hub's package into one clear line.

    Args:
        where: the address, named in front.
        log_in: an answer without rights means that a token is missing.

    Raises:
        ArtifactError: instead of them.
    """
    try:
        yield
    except SoftpromptError:
        raise
    except Exception as error:
        told = _told(error, log_in)
        if told is None:
            raise
        raise ArtifactError(f"{where}: {told}") from None


def _told(error: Exception, log_in: bool) -> str | None:
    """What happened and what to do; None where the error is not the hub's."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError):
        if constants.HF_HUB_OFFLINE:
            return "is not in the cache, and HF_HUB_OFFLINE is set; download it once without that"
        return "the hub cannot be reached, and it is not in the cache; check the connection, then try again"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "the hub is not asked, because HF_HUB_OFFLINE is set; unset it"
    if isinstance(error, errors.GatedRepoError):
        return f"is gated; ask for access on its page, then {_LOG_IN}"
    if isinstance(error, errors.RepositoryNotFoundError) and not log_in:
        return f"no such repository, or a private one; check the name, and if it is private {_LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return "there is no such revision; name a branch, a tag or a whole commit"
    if isinstance(error, errors.HFValidationError):
        return "is no name of a repository; expected OWNER/NAME"
    if isinstance(error, errors.HfHubHTTPError):
        return _of_status(error.response.status_code, str(error.server_message or ""))
    if (why := why_unreachable(error)) is not None:
        return f"the hub cannot be reached ({why}); check the connection, then try again"
    if type(error).__module__.startswith(("huggingface_hub", "hf_xet")):
        return f"the hub's files could not be transferred ({_shown(str(error))}); try again"
    return None


def _shown(text: str) -> str:
    """What somebody else says, in one line and without a token."""
    return _TOKEN.sub("hf_…", one_line(text, 200))


def _of_status(status: int, message: str) -> str:
    said = f" ({_shown(message)})" if message else ""
    if status == 401:
        return f"the hub wants to know who you are; {_LOG_IN}"
    if status == 403:
        return f"the hub does not allow this{said}; check the owner's name, and that the token may write there"
    if status == 429:
        return "the hub has had too many requests; wait a few minutes, then try again"
    if status >= 500:
        return f"the hub answers {status}; try again later"
    return f"the hub answers {status}{said}; check the name and the revision"
