"""One pinned file of a package on the index: fetched without running any of its code, believed only by its digest."""

from __future__ import annotations

import html
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
    """The file's address on the project's page of the index."""
    page = f"{_index().rstrip('/')}/{re.sub(r'[-_.]+', '-', project).lower()}/"
    with _open(page, filename, path) as answer:
        kind, body, at = answer.headers.get_content_type(), answer.read().decode("utf-8", "replace"), answer.geturl()
    if kind.endswith("json"):
        links = {item["filename"]: item["url"] for item in json.loads(body)["files"]}
    else:
        hrefs = [html.unescape(href) for href in re.findall(r"""<a\b[^>]*?href=["']([^"']+)["']""", body)]
        links = {Path(urllib.parse.unquote(urllib.parse.urlparse(href).path)).name: href for href in hrefs}
    if filename not in links:
        raise DataError(f"{filename}: the package index does not list it; place the file at {path}")
    return urllib.parse.urljoin(at, links[filename])


def _download(link: str, to: Path, progress: Bytes, path: Path) -> None:
    for attempt in range(_TRIES):
        try:
            with _open(link, path.name, path) as answer, to.open("wb") as file:
                total = int(answer.headers.get("Content-Length") or 0)
                while block := answer.read(1 << 18):
                    file.write(block)
                    progress(file.tell(), total)
            return
        except (TimeoutError, ConnectionError) as error:
            if attempt + 1 == _TRIES:
                raise DataError(
                    f"{path.name}: the download broke off ({error}); try again, or place the file at {path}"
                ) from None


def _open(url: str, filename: str, path: Path) -> Any:
    request = urllib.request.Request(url.partition("#")[0], headers={"Accept": _ACCEPT})
    parts = urllib.parse.urlsplit(url)
    if parts.username:
        manager = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        manager.add_password(
            None, bare, urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or "")
        )
        opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(manager))
        request = urllib.request.Request(bare.partition("#")[0], headers={"Accept": _ACCEPT})
    else:
        certificates = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
        context = ssl.create_default_context(
            cafile=certificates if certificates and Path(certificates).is_file() else None
        )
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
    try:
        return opener.open(request, timeout=_TIMEOUT)
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{filename}: the package index cannot be reached ({reason}); connect once, or place the file at {path}"
        ) from None


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
