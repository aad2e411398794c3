"""The documentation site: `make docs` builds it into docs/_build/html."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from public import public_names
from sphinx.util.logging import getLogger

from softprompt import __version__

project = "softprompt"
author = "the softprompt authors"
version = release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_llms_txt",
]
exclude_patterns = ["_build", "public.py"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
suppress_warnings = ["myst.header"]  # pages may go from a title to a third-level heading

default_role = "code"  # docstrings mark code with single backticks, as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"softprompt {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = True
html_show_sourcelink = True
copybutton_exclude = ".linenos, .gp, .go"  # no prompts, no output

llms_txt_summary = (
    "Train small prompts on a frozen model, prove that they help, and serve hundreds of them on one base."
)
llms_txt_uri_template = "_sources/{docname}{suffix}{sourcelink_suffix}"  # relative: the site may lie anywhere
llms_txt_exclude = ["search", "genindex", "py-modindex"]

linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_allowed_redirects = {r".*": r".*"}

_FIRST = {(one.package, one.name): one for one in public_names()}


def _skip_member(app: Any, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """A name stands on the page of the first package that exports it.

    scikit-learn's `set_*_request`, pydantic's `model_config` and the `Spec` of methods and tasks are left out.
    """
    if what == "class" and (re.fullmatch(r"set_\w+_request", name) or name in ("Spec", "model_config")):
        return True
    if what != "module":
        return None
    page = app.env.docname.rpartition("/")[2]  # each package has a page of its last name
    return not any(one.package.rpartition(".")[2] == page and one.name == name for one in _FIRST.values())


def _docstring(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with Markdown's backticks; autodoc does not see the text of a constant that is imported."""
    one = _FIRST.get(tuple(name.rsplit(".", 1)))  # type: ignore[call-overload]
    if what == "data" and one is not None:
        lines[:] = one.doc.splitlines()
    if what == "module":  # an indented block is code
        for place in range(len(lines) - 1, 1, -1):
            if lines[place].startswith("    ") and not lines[place - 1] and re.match(r"\S", lines[place - 2]):
                lines.insert(place - 1, "::")
                lines.insert(place - 1, "")
    lines[:] = [re.sub(r"(``?)([^`]+)\1(\w?)", _code, line) for line in lines]


def _no_type(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """napoleon takes what stands before a colon in a property's first line for its type, but not behind a comment."""
    if what in ("property", "attribute"):
        lines[:0] = ["..", ""]


def _code(match: re.Match[str]) -> str:
    """Code as reStructuredText wants it: the s of `Row`s stands apart from it."""
    marks, code, letter = match.groups()
    return f"{marks}{code}{marks}" + (f"\\ {letter}" if letter else "")


def _all_public(app: Any, environment: Any) -> None:
    """Each public name is on a page."""
    on_pages = environment.domaindata["py"]["objects"].keys() | environment.domaindata["py"]["modules"].keys()
    for one in _FIRST.values():
        if one.full not in on_pages:
            getLogger(__name__).warning(
                "%s is public, and on no page of docs/reference", one.full, location=str(one.file)
            )


def _link_outside(app: Any, docname: str, source: list[str]) -> None:
    """Links to Markdown files that are no pages, such as benchmarks/LOG.md, become links to a copy of the file."""
    outside = "../" * (docname.count("/") + 1)
    source[0] = re.sub(rf"\]\(({re.escape(outside)}[^)#]+\.md)(#[^)]*)?\)", r"](path:\1)", source[0])


def setup(app: Any) -> None:
    """Connect the functions above."""
    app.connect("autodoc-skip-member", _skip_member)
    app.connect("autodoc-process-docstring", _no_type, priority=400)  # before napoleon's own, of 500
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("env-check-consistency", _all_public)
    app.connect("source-read", _link_outside)
