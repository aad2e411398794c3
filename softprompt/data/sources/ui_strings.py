"""Translation: the strings of Django's user interface and their translations, as its translators keep them in gettext files."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..source import Source, release

_FILES = re.compile(
    r"django/(conf|contrib/(?P<app>\w+))/locale/(?P<locale>\w+)/LC_MESSAGES/(?P<domain>djangojs|django)\.po"
)


def parse(package: Path, locale: str) -> Iterator[dict[str, Any]]:
    """Pairs of a locale, in the order of their files. Fuzzy, obsolete, plural and untranslated entries are left out.

    Placeholders (`%(name)s`, `{count}`) stay. A pair that occurs several times in one app is given once.
    """
    import polib

    seen: set[tuple[str, str, str]] = set()
    with zipfile.ZipFile(package) as archive:
        for name in sorted(archive.namelist()):
            found = _FILES.fullmatch(name)
            if found is None or found["locale"] != locale:
                continue
            app = found["app"] or "conf"
            for entry in polib.pofile(archive.read(name).decode("utf-8")):
                usable = entry.translated() and not (entry.fuzzy or entry.obsolete or entry.msgid_plural)
                key = (app, entry.msgid, entry.msgstr)
                if not usable or not entry.msgid.strip() or key in seen:
                    continue
                seen.add(key)
                row = {
                    "id": f"{app}-{len(seen)}",
                    "source": entry.msgid.strip(),
                    "target": entry.msgstr.strip(),
                    "app": app,
                }
                yield row | ({"context": entry.msgctxt} if entry.msgctxt else {})


def _ui(code: str, locale: str, language: str, rows: int, jsonl_sha256: str) -> Source:
    return Source(
        name=f"ui-strings-{code}",
        title=f"strings of Django's user interface, English to {language}",
        rows=rows,
        language=f"English, {language}",
        licence="BSD-3-Clause",
        citation="Django 5.2.19 and its translators",
        fetch=release(
            "django",
            "django-5.2.19-py3-none-any.whl",
            "5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00",
        ),
        parse=partial(parse, locale=locale),
        jsonl_sha256=jsonl_sha256,
        task="generation",
        fields=("id", "source", "target", "app", "context"),
    )


SOURCES = (
    _ui("fr", "fr", "French", 853, "cef73a1246cc213f073ea6f097267e35f05f2ffb4a455cae9377d5fef45f1787"),
    _ui("de", "de", "German", 821, "16379d64c91e23d3485deb15fe0b5e4cef9366e7e19fbe39d81334d4f5bc0e0a"),
    _ui("es", "es", "Spanish", 837, "d21c07a1636066454d748d5426c2c1536df787774c63bbb4feeec1711ab6c7db"),
    _ui("zh", "zh_Hans", "Chinese", 834, "0fea95be725880630f644604cb68dd83d5d6d40ac67bdf1bd0417721b2f83202"),
)
