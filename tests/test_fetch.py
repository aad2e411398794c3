"""A package index that misbehaves: one line that names the page, what is wrong with it, and where to place the file by hand."""

from __future__ import annotations

import hashlib
import http.server
import threading

import pytest

from softprompt.data import fetch
from softprompt.errors import DataError

JSON = "application/vnd.pypi.simple.v1+json"
FILE = b"the file's bytes"
SHA256 = hashlib.sha256(FILE).hexdigest()
LISTED = b'{"files": [{"filename": "p-1.tar.gz", "url": "p-1.tar.gz"}]}'


class Index:
    """Answers (kind, body, bytes announced beyond the body) in order; the last one for ever."""

    def __init__(self):
        self.answers, self.asked = [(JSON, LISTED, 0)], []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                outer.asked.append(self.path)
                kind, body, more = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body) + more))
                self.end_headers()
                self.wfile.write(body)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def index(monkeypatch, tmp_path):
    found = Index()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{found.server.server_port}/simple")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    yield found
    found.server.shutdown()
    found.server.server_close()


def told(tmp_path):
    with pytest.raises(DataError) as caught:
        fetch.fetch_release_file("p", "p-1.tar.gz", SHA256)
    said = str(caught.value)
    assert "\n" not in said and f"place the file at {tmp_path / 'cache' / 'downloads' / 'p-1.tar.gz'}" in said
    assert not list((tmp_path / "cache" / "downloads").glob("*"))
    return said


@pytest.mark.parametrize(
    "body, message",
    [
        (b"{", "is not JSON, as it says it is"),
        (b"[" * 100_000, "is not JSON, as it says it is"),
        (b"{}", "lists no files as a package index does"),
        (b"[]", "lists no files"),
        (b"null", "lists no files"),
        (b'{"files": "x"}', "lists no files"),
        (b'{"files": {"a": 1}}', "lists no files"),
        (b'{"files": [{}]}', "lists no files"),
        (b'{"files": [1, null, []]}', "lists no files"),
        (b'{"files": [{"filename": "p-1.tar.gz"}]}', "lists no files"),
        (b'{"files": [{"filename": 1, "url": 2}]}', "lists no files"),
        (b'{"files": [{"filename": "q", "url": "q"}]}', "does not list it (http://127.0.0.1"),
        (b'{"files": [{"filename": "p-1.tar.gz", "url": "gopher://x"}]}', "is no address of http"),
        (b'{"files": [{"filename": "p-1.tar.gz", "url": "http://[::1"}]}', "p-1.tar.gz: "),
        (b"\xff\xfe", "is not JSON"),
    ],
)
def test_pages_that_are_none(index, tmp_path, body, message):
    index.answers = [(JSON, body, 0)]
    assert message in told(tmp_path)


def test_html_pages_and_what_they_hold(index, tmp_path):
    index.answers = [("text/html", b'<a href="http://[bad">p</a><a href="q-1.tar.gz">q</a>', 0)]
    assert "does not list it" in told(tmp_path)
    index.answers = [("text/html", b'<a href="http://[bad">p</a><a href="p-1.tar.gz">p</a>', 0), ("x/y", FILE, 0)]
    assert fetch.fetch_release_file("p", "p-1.tar.gz", SHA256).read_bytes() == FILE


def test_what_is_cut_short_is_tried_again(index, tmp_path):
    index.answers = [(JSON, LISTED, 9), (JSON, LISTED, 0), ("x/y", FILE[:5], 11), ("x/y", FILE, 0)]
    assert fetch.fetch_release_file("p", "p-1.tar.gz", SHA256).read_bytes() == FILE
    assert index.asked == ["/simple/p/"] * 2 + ["/simple/p/p-1.tar.gz"] * 2


def test_what_stays_cut_short_is_said_to_be(index, tmp_path):
    index.answers = [(JSON, LISTED, 0), ("x/y", FILE[:5], 11)]
    assert "the download broke off (it was cut short)" in told(tmp_path)


def test_pages_and_files_have_a_largest_size(index, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "_LARGEST_PAGE", 10)
    assert "is larger than" in told(tmp_path)
    monkeypatch.setattr(fetch, "_LARGEST_PAGE", 1 << 20)
    monkeypatch.setattr(fetch, "_LARGEST_FILE", 3)
    index.answers = [(JSON, LISTED, 0), ("x/y", FILE, 0)]
    assert "sends more than" in told(tmp_path)


def test_indexes_that_are_no_addresses_and_secrets_that_are_not_told(index, tmp_path, monkeypatch):
    for url in ("nonsense", "ftp://x/simple", "http://", "http://[::1/simple", "http://a b/"):
        monkeypatch.setenv("PIP_INDEX_URL", url)
        assert "the package index cannot be reached" in told(tmp_path)
    index.answers = [(JSON, b"{}", 0)]
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:secret@127.0.0.1:{index.server.server_port}/simple")
    assert "secret" not in told(tmp_path)
