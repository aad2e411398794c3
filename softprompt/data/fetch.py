"""One pinned file of a package on the index: fetched without running any of its code, believed only by its digest."""

from __future__ import annotations

import html
import http.client
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..storage import atomic_file, cache_dir, sha256_file

Bytes = Callable[[int, int], None]
_TRIES, _TIMEOUT = 3, 60
_LARGEST_PAGE, _LARGEST_FILE = 64 << 20, 4 << 30  # bytes; the largest page of PyPI has some 30 MB
_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"  # PEP 691, else PEP 503


def fetch_release_file(project: str, filename: str, sha256: str, progress: Bytes | None = None) -> Path:
    """A file of a project's release, in the cache's `downloads`.

    Args:
        sha256: hex digest that the file must have.
        progress: called with (bytes done, bytes in all).

    Raises:
        DataError: not on the index, not reachable, or another digest; says what to do.
    """
    path = cache_dir() / "downloads" / filename
    if path.is_file() and sha256_file(path) == sha256:
        return path
    link = _find(project, filename, path)
    with atomic_file(path) as temporary:
        _download(link, temporary, progress or (lambda done, total: None), path)
        found = sha256_file(temporary)
        if found != sha256:
            raise DataError(
                f"{filename}: the index gave a file with sha256 {found[:16]}…, expected {sha256[:16]}…; it was not used"
            )
    return path


def _find(project: str, filename: str, path: Path) -> str:
    """The file's address on the project's page of the index.

    Raises:
        DataError: no such page, or one that is not as package indexes are; names the page.
    """
    page = f"{_index().rstrip('/')}/{re.sub(r'[-_.]+', '-', project).lower()}/"
    place = f"place the file at {path}"
    kind, body, at = _tried(lambda: _page(page, filename, path), filename, path)
    if len(body) > _LARGEST_PAGE:
        raise DataError(f"{filename}: {_without_secret(page)} is larger than {_LARGEST_PAGE >> 20} MiB; {place}")
    text = body.decode("utf-8", "replace")
    if kind.endswith("json"):
        try:
            links = _listed(json.loads(text))
        except (ValueError, RecursionError):
            raise DataError(f"{filename}: {_without_secret(page)} is not JSON, as it says it is; {place}") from None
        if links is None:
            raise DataError(f"{filename}: {_without_secret(page)} lists no files as a package index does; {place}")
    else:
        hrefs = [html.unescape(href) for href in re.findall(r"""<a\b[^>]{0,4096}?href=["']([^"']{1,4096})["']""", text)]
        links = {_last_part(href): href for href in hrefs}
    if filename not in links:
        raise DataError(f"{filename}: the package index does not list it ({_without_secret(page)}); {place}")
    try:
        return urllib.parse.urljoin(at, links[filename])
    except ValueError:
        raise DataError(f"{filename}: {_without_secret(page)} gives no address for it; {place}") from None


def _page(page: str, filename: str, path: Path) -> tuple[str, bytes, str]:
    """The kind of a page, its bytes (one more than the largest that is read) and its address."""
    with _open(page, filename, path) as answer:
        body = answer.read(_LARGEST_PAGE + 1)
        _whole(answer, len(body), _LARGEST_PAGE)
        return answer.headers.get_content_type(), body, answer.geturl()


def _listed(found: Any) -> dict[str, str] | None:
    """Address by file name of a JSON page; None if it is none."""
    files = found.get("files") if isinstance(found, dict) else None
    if not isinstance(files, list):
        return None
    pairs = [(item.get("filename"), item.get("url")) for item in files if isinstance(item, dict)]
    links = {name: url for name, url in pairs if isinstance(name, str) and isinstance(url, str)}
    return links or None


def _last_part(href: str) -> str:
    try:
        return Path(urllib.parse.unquote(urllib.parse.urlparse(href).path)).name
    except ValueError:  # no address at all
        return ""


def _download(link: str, to: Path, progress: Bytes, path: Path) -> None:
    def once() -> None:
        with _open(link, path.name, path) as answer, to.open("wb") as file:
            total = _length(answer) or 0
            while block := answer.read(1 << 18):
                file.write(block)
                if file.tell() > _LARGEST_FILE:
                    raise DataError(
                        f"{path.name}: the package index sends more than {_LARGEST_FILE >> 30} GiB; place the file at {path}"
                    )
                progress(file.tell(), total)
            _whole(answer, file.tell(), _LARGEST_FILE)

    _tried(once, path.name, path)


def _tried(once: Callable[[], Any], filename: str, path: Path) -> Any:
    """What `once` gives, tried again where the connection breaks off.

    Raises:
        DataError: it broke off each time.
    """
    for attempt in range(_TRIES):
        try:
            return once()
        except (TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
            if attempt + 1 == _TRIES:
                reason = "it was cut short" if isinstance(error, http.client.IncompleteRead) else str(error)
                raise DataError(
                    f"{filename}: the download broke off ({reason}); try again, or place the file at {path}"
                ) from None


def _whole(answer: Any, read: int, largest: int) -> None:
    """Raise IncompleteRead where less came than was announced: blocks of a cut answer end as those of a whole one do."""
    total = _length(answer)
    if total is not None and read < min(total, largest + 1):
        raise http.client.IncompleteRead(b"", total - read)


def _length(answer: Any) -> int | None:
    """Bytes that are announced."""
    length = (answer.headers.get("Content-Length") or "").strip()
    return int(length) if length.isascii() and length.isdigit() and len(length) < 16 else None


def _open(url: str, filename: str, path: Path) -> Any:
    try:
        return _opened(url)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{filename}: the package index cannot be reached ({reason}); connect once, or place the file at {path}"
        ) from None


def _opened(url: str) -> Any:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https", "file"):
        raise ValueError(f"{_without_secret(url)[:80]!r} is no address of http or https")
    if parts.username:
        manager = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        manager.add_password(
            None, bare, urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or "")
        )
        opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(manager))
        url = bare
    else:
        certificates = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
        context = ssl.create_default_context(
            cafile=certificates if certificates and Path(certificates).is_file() else None
        )
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(url.partition("#")[0], headers={"Accept": _ACCEPT})
    return opener.open(request, timeout=_TIMEOUT)


def _without_secret(url: str) -> str:
    """An address without the name and password in it."""
    scheme, sign, rest = url.partition("://")
    host, slash, tail = rest.partition("/")
    return f"{scheme}{sign}{host.rpartition('@')[2]}{slash}{tail}"


def _index() -> str:
    """The index that pip would ask: environment, pip's configuration, else PyPI."""
    if url := os.environ.get("PIP_INDEX_URL"):
        return url
    for key in ("global.index-url", "install.index-url"):
        command = [sys.executable, "-m", "pip", "config", "get", key]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode == 0 and asked.stdout.strip():
            return asked.stdout.strip()
    return "https://pypi.org/simple"
