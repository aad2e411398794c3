"""`softprompt examples` and `softprompt examples copy`: the project's examples, also where it was installed by pip."""

from __future__ import annotations

import ast
import filecmp
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from .app import app
from .console import out
from .options import Json
from .outputs import refuse_replacing, tell_json

ALL = "all"
_NESTED = ("recipes",)
"""Folders whose own folders are examples."""
_COMMANDS = ("softprompt ", "python ", "torchrun ", "pip ", "make ")

verbs = typer.Typer(help="Examples: run files, tasks and scripts. Without a verb: list them.")
app.add_typer(verbs, name="examples")


@dataclass(frozen=True)
class Example:
    """Files that belong together.

    Attributes:
        files: relative to the folder of all examples; the one that explains the example comes first.
    """

    name: str
    title: str
    files: tuple[Path, ...]


@verbs.callback(
    invoke_without_command=True, epilog="Examples: `softprompt examples`, `softprompt examples copy movies`"
)
def list_examples(context: typer.Context, document: Json = None) -> None:
    """Run files, tasks and scripts. Without a verb, each is listed with what it shows."""
    if context.invoked_subcommand is not None:
        return
    refuse_replacing({"--json": document})
    known = read_examples(examples_folder())
    table = Table("example", "what it shows")
    for example in known:
        table.add_row(example.name, example.title)
    out.print(table)
    out.print("`softprompt examples copy NAME` copies one into the folder `examples`, `copy all` copies all of them.")
    tell_json(document, [{"name": each.name, "title": each.title, "files": each.files} for each in known])


@verbs.command("copy", epilog="Examples: `softprompt examples copy movies`, `softprompt examples copy all mine`")
def copy_examples(
    name: Annotated[str, typer.Argument(help="Name from `softprompt examples`, or all.")] = ALL,
    folder: Annotated[Path, typer.Argument(help="Folder to copy into; it is made if needed.")] = Path("examples"),
    document: Json = None,
) -> None:
    """Copy examples into a folder. A file that is there already and differs is never replaced.

    Commands in the docs name the folder `examples`.
    """
    from ..config import suggest
    from ..errors import ConfigError
    from ..storage import atomic_file

    refuse_replacing({"--json": document})
    source = examples_folder()
    known = read_examples(source)
    chosen = [example for example in known if name in (ALL, example.name)]
    if not chosen:
        raise ConfigError(f"no example {name!r}{suggest(name, [ALL, *(example.name for example in known)])}")
    files = dict.fromkeys(file for example in chosen for file in example.files)
    missing = [file for file in files if _to_copy(source / file, folder / file)]
    for file in missing:
        with atomic_file(folder / file) as temporary:
            shutil.copyfile(source / file, temporary)
    there = f", {len(files) - len(missing)} were there already" if len(missing) < len(files) else ""
    out.print(f"{folder}: {len(missing)} files copied{there}")
    tell_json(document, {"folder": folder, "copied": missing, "files": list(files)})


def examples_folder() -> Path:
    """Where the examples are: in the installed package, or beside it in a checkout.

    Raises:
        ConfigError: in neither.
    """
    from ..errors import ConfigError

    package = Path(__file__).parents[1]
    for folder in (package / "examples", package.parent / "examples"):
        if folder.is_dir():
            return folder
    raise ConfigError(f"{package}: this installation has no examples; install softprompt again")


def read_examples(folder: Path) -> list[Example]:
    """All examples of a folder, by name.

    Files and folders of one name are one example. Modules that a script imports (`demo_mixed.py` of `demo.py`) belong to the
    script. Files with no name of their own (rows, a README) go along with every example of their folder.
    """
    there = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    paths = [path for path in there if not _is_left_over(path)]
    named: dict[str, list[Path]] = {}
    shared: dict[str, list[Path]] = {}
    for path in paths:
        name, parent = _name(path, paths)
        (named.setdefault(name, []) if name else shared.setdefault(parent, [])).append(path)
    examples = []
    for name, files in named.items():
        files.sort(key=_explains)
        along = shared.get(name.rpartition("/")[0], ())
        examples.append(Example(name, _title(folder / files[0]), (*files, *along)))
    return sorted(examples, key=lambda example: ("/" in example.name, example.name))


def _name(path: Path, paths: list[Path]) -> tuple[str, str]:
    """The example that a file belongs to (empty: to all of its folder), and that folder."""
    parts = path.parts
    if parts[0] in _NESTED:
        return ("/".join(parts[:2]) if len(parts) > 2 else ""), parts[0]
    if len(parts) > 1:
        return parts[0], ""
    if path.suffix not in (".py", ".yaml"):
        return "", ""
    script = next((one.stem for one in paths if one.suffix == ".py" and path.stem.startswith(f"{one.stem}_")), None)
    return (script if path.suffix == ".py" and script else path.stem), ""


def _is_left_over(path: Path) -> bool:
    """What Python or an editor leaves beside files, and the tool that records what recipes give.

    The path is relative, as the folder itself may be hidden.
    """
    if len(path.parts) == 2 and path.parts[0] in _NESTED and path.suffix == ".py":
        return True
    return path.suffix == ".pyc" or any(part.startswith((".", "__pycache__")) for part in path.parts)


def _explains(path: Path) -> tuple[bool, bool, bool, Path]:
    """A README first, then what stands highest, then run files and scripts before data."""
    return path.name != "README.md", len(path.parts) > 1, path.suffix not in (".yaml", ".py"), path


def _title(path: Path) -> str:
    """The first sentence that a file has about itself; where it names only a command, that one."""
    lines = list(_told(path))
    told = next((line for line in lines if not line.startswith(_COMMANDS)), None)
    return told or (f"`{lines[0]}`" if lines else "")


def _told(path: Path) -> Iterator[str]:
    """Lines in which a file says what it is: a docstring, comments at the beginning, a heading."""
    if path.suffix not in (".py", ".yaml", ".md"):
        return
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from (ast.get_docstring(ast.parse(text)) or "").splitlines()[:1]
        return
    for line in text.splitlines():
        if not line.startswith("#"):
            return
        yield line.lstrip("# ").rstrip()


def _to_copy(source: Path, target: Path) -> bool:
    """Whether a file is not there yet.

    Raises:
        ConfigError: another file of that name is there.
    """
    from ..errors import ConfigError

    if not target.exists() and not target.is_symlink():
        return True
    if target.is_file() and filecmp.cmp(source, target, shallow=False):
        return False
    raise ConfigError(f"{target}: is there already and differs from the example; move it away, or name another folder")
