"""Folders as a stranger might make them: files that are not what they are called, and manifests that ask for too much.

Each kind changes a copy of a good artifact, ensemble, run's folder or PEFT folder. `REFUSED` must be refused in one line;
`HARMLESS` must answer as before.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hostile import seal
from safetensors.torch import load, save

from softprompt.storage import digest_of, sha256_file

Change = Callable[[Path], Any]
MANIFEST, TENSORS, CONFIG = "manifest.json", "adapter_model.safetensors", "adapter_config.json"
BOMB = "RAN"
"""A file of this name in the current folder says that code has run."""


class _Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, (BOMB,)


def pickled() -> bytes:
    """A pickle that makes the folder `BOMB` when it is opened."""
    return pickle.dumps(_Bomb())


def text(name: str, content: str | bytes) -> Change:
    """Other contents of a file."""
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def edit(change: Callable[[dict[str, Any]], Any]) -> Change:
    """The manifest changed, with all digests right."""

    def made(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        change(manifest)
        seal(folder, manifest)

    return made


def written(change: Callable[[str], str | bytes]) -> Change:
    """The text of the manifest changed, as it is."""
    return lambda folder: text(MANIFEST, change((folder / MANIFEST).read_text()))(folder)


def tensors(make: Callable[[bytes], bytes]) -> Change:
    """Other bytes of the tensors, with their digest in the manifest."""

    def made(folder: Path) -> None:
        (folder / TENSORS).write_bytes(make((folder / TENSORS).read_bytes()))
        edit(lambda manifest: None)(folder)

    return made


def header(change: Callable[[dict[str, Any]], Any] = lambda held: None, text: str | None = None) -> Change:
    """Another header of the tensors."""

    def make(data: bytes) -> bytes:
        end = 8 + int.from_bytes(data[:8], "little")
        held = json.loads(data[8:end])
        change(held)
        new = (json.dumps(held) if text is None else text.replace("HELD", json.dumps(held)[1:-1])).encode()
        return struct.pack("<Q", len(new)) + new + data[end:]

    return tensors(make)


def instead(name: str, make: Callable[[Path], Any]) -> Change:
    """Something else where a file was."""

    def made(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return made


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # such a name may not be long
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


def sparse(size: int) -> Callable[[Path], Any]:
    """A file of this size that takes no disk."""

    def made(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(size)

    return made


def zipped(path: Path, data: bytes) -> None:
    """A file as an archive of itself."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(path.name, data)


def _zip(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("adapter_model/data.pkl", pickled())
        archive.writestr("adapter_model/data/0", bytes(50_000_000))
    return buffer.getvalue()


def _slots(count: int) -> Change:
    """A prompt of so many trained slots, with a file that has their size."""

    def made(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        width = manifest["base"]["shape"]["hidden_size"]
        manifest["layout"]["length"] = manifest["method"]["length"] = count
        manifest["tensors"] = {"prompt_embeddings": {"shape": [count, width], "dtype": "float32"}}
        manifest["parameters"] = {"trained": count * width, "stored": count * width}
        held = {"prompt_embeddings": {"dtype": "F32", "shape": [count, width], "data_offsets": [0, 4 * count * width]}}
        head = json.dumps(held).encode()
        with (folder / TENSORS).open("wb") as file:
            file.write(struct.pack("<Q", len(head)) + head)
            file.truncate(8 + len(head) + 4 * count * width)
        if count < 10**8:  # nobody reads it to its end otherwise
            manifest["tensors_sha256"] = sha256_file(folder / TENSORS)
        manifest.pop("manifest_sha256", None)
        (folder / MANIFEST).write_text(json.dumps({**manifest, "manifest_sha256": digest_of(manifest)}))

    return made


def _template(source: str) -> Change:
    return edit(lambda held: held["task"]["template"].update(input=source))


MANIFESTS: dict[str, Change] = {
    "an empty manifest": text(MANIFEST, ""),
    "a list": text(MANIFEST, "[]"),
    "null": text(MANIFEST, "null"),
    "a text": text(MANIFEST, '"manifest"'),
    "a key twice": written(lambda old: old.replace("{", '{"format_version": 2, ', 1)),
    "a key twice, once escaped": written(lambda old: old.replace("{", '{"format_\\u0076ersion": 2, ', 1)),
    "nested 400,000 deep": text(MANIFEST, "[" * 400_000),
    "nested objects": text(MANIFEST, '{"a":' * 100_000 + "1" + "}" * 100_000),
    "nested 70 deep": edit(lambda held: held["training"].update(a=json.loads("[" * 70 + "]" * 70))),
    "not a number": written(lambda old: old.replace('"seed": 0', '"seed": NaN')),
    "minus infinity": written(lambda old: old.replace('"seed": 0', '"seed": -Infinity')),
    "1e999": written(lambda old: old.replace('"seed": 0', '"seed": 1e999')),
    "a number of 100,000 digits": written(lambda old: old.replace('"seed": 0', f'"seed": {"9" * 100_000}')),
    "no UTF-8": written(lambda old: old.encode().replace(b"tiny", b"t\xff\xfey")),
    "overlong UTF-8": written(lambda old: old.encode().replace(b"tiny", b"t\xc0\xafy")),
    "UTF-16": written(lambda old: old.encode("utf-16")),
    "a byte order mark": written(lambda old: b"\xef\xbb\xbf" + old.encode()),
    "half a pair": written(lambda old: old.replace('"seed": 0', '"seed": 0, "x": "\\ud800"')),
    "cut short": written(lambda old: old[: len(old) // 2]),
    "two documents": written(lambda old: old + old),
    "a million blanks": text(MANIFEST, " " * 1_000_001),
    "300,000 lists": text(MANIFEST, '{"a": [' + ",".join(["[]"] * 300_000) + "]}"),
    "240,000 mappings": text(MANIFEST, '{"a": [' + ",".join(["{}"] * 240_000) + "]}"),
    "1,000,000 mappings beside a whole model": lambda to: (
        text("model.safetensors", "")(to),
        text(MANIFEST, '{"a": [' + ",".join(["{}"] * 1_300_000) + "]}")(to),
    ),
    "100,000 keys": text(MANIFEST, json.dumps({f"{key}": 0 for key in range(80_000)})),
    "a link out": instead(MANIFEST, lambda path: path.symlink_to("/etc/passwd")),
    "a link to itself": instead(MANIFEST, lambda path: path.symlink_to(MANIFEST)),
    "a pipe": instead(MANIFEST, os.mkfifo),
    "a folder": instead(MANIFEST, Path.mkdir),
    "a device": instead(MANIFEST, lambda path: path.symlink_to("/dev/zero")),
    "a socket": instead(MANIFEST, _socket),
    "a terabyte": instead(MANIFEST, sparse(1 << 40)),
    "a zip archive": lambda to: zipped(to / MANIFEST, (to / MANIFEST).read_bytes()),
    "files above the folder": edit(lambda held: held["files"].update({"../../x": "0" * 64})),
    "files by a whole path": edit(lambda held: held["files"].update({"/etc/passwd": "0" * 64})),
    "files with a line end": edit(lambda held: held["files"].update({"a\n": "0" * 64})),
    "10,000 files": edit(lambda held: held["files"].update({f"f{at}": "0" * 64 for at in range(10_000)})),
    "a file that is a pipe": lambda to: (os.mkfifo(to / "pipe"), edit(lambda m: m["files"].update(pipe="0" * 64))(to)),
    "itself among its files": edit(lambda held: held["files"].update({MANIFEST: "0" * 64})),
    "a word of a million letters": edit(lambda held: held["task"]["verbalizer"].update(good="a" * 900_000)),
    "a word of many tokens": edit(lambda held: held["task"]["verbalizer"].update(good="g " * 400_000)),
    "a long demonstration": edit(
        lambda held: held["task"].update(demonstrations={"k": 1, "rows": [{"text": "a b " * 200_000, "label": "good"}]})
    ),
    "a long content-free text": edit(
        lambda held: held["task"]["scoring"].update(calibration="contextual", content_free=["a b " * 200_000])
    ),
    "a template that repeats": _template("{{ text }}{{ 'a' * 10**9 }}"),
    "a template that centres": _template("{{ text }}{{ text | center(10**9) }}"),
    "a template that counts": _template("{{ text }}{{ range(10**9) | list }}"),
    "a template with a power": _template("{{ text }}{{ 9 ** (9 ** 9) }}"),
    "a template that formats by %": _template("{{ text }}{{ '%1000000000d' % 1 }}"),
    "a template that formats": _template("{{ text }}{{ '{:>1000000000}'.format(1) }}"),
    "a template with the format filter": _template("{{ text }}{{ '%1000000000d' | format(1) }}"),
    "a template that indents": _template("{{ text }}{{ text | indent(10**9, true) }}"),
    "a template that looks for classes": _template("{{ text.__class__.__mro__[1].__subclasses__() }}{{ text }}"),
    "a template that looks for globals": _template(
        "{{ range.__globals__ }}{{ cycler.__init__.__globals__ }}{{ text }}"
    ),
    "a template with a billion slots": _template("{{ soft(1000000000) }} {{ text }}"),
    "a template that loops": _template(
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ text }}{% endfor %}{% endfor %}"
    ),
    "a method of another's module": edit(lambda held: held["method"].update(name="os:system")),
    "a task type of another's module": edit(lambda held: held["task"].update(type="subprocess.Popen")),
}
FILES: dict[str, Change] = {
    "a header of 2^63 bytes": tensors(lambda data: struct.pack("<Q", 2**63) + data[8:]),
    "a header of 2^40 bytes": tensors(lambda data: struct.pack("<Q", 2**40) + data[8:]),
    "a header beyond the file": tensors(lambda data: struct.pack("<Q", len(data)) + data[8:]),
    "a header of no bytes": tensors(lambda data: bytes(8) + data[8:]),
    "a header that is a list": header(text="[]"),
    "a header with a tensor twice": header(text="{HELD, HELD}"),
    "a header nested 100,000 deep": header(text='{"a":' * 100_000 + "1" + "}" * 100_000),
    "a header with mappings in its metadata": header(lambda held: held.update(__metadata__={"a": {"b": "c"}})),
    "a header without numbers": header(lambda held: held.clear()),
    "shapes of 2^62": header(lambda held: _first(held).update(shape=[2**62, 4])),
    "a shape below zero": header(lambda held: _first(held).update(shape=[-1])),
    "offsets that overlap": header(lambda held: held.update(more=dict(_first(held)))),
    "offsets backwards": header(lambda held: _first(held).update(data_offsets=[64, 0])),
    "an unknown type": header(lambda held: _first(held).update(dtype="PICKLE")),
    "bytes behind the numbers": tensors(lambda data: data + b"PK\x03\x04"),
    "compressed numbers": tensors(gzip.compress),
    "an archive that grows": tensors(_zip),
    "a pickle": tensors(lambda data: pickled()),
    "numbers of other bits": text(TENSORS, "x"),
    "numbers that are a pipe": instead(TENSORS, os.mkfifo),
    "numbers that are a device": instead(TENSORS, lambda path: path.symlink_to("/dev/zero")),
    "numbers that are a link out": instead(TENSORS, lambda path: path.symlink_to("/proc/self/mem")),
    "numbers that are a folder": instead(TENSORS, Path.mkdir),
    "a terabyte of numbers": instead(TENSORS, sparse(1 << 40)),
    "a billion trained slots": _slots(10**9),
    "a million trained slots": _slots(10**6),
    "only a pickle": lambda to: ((to / TENSORS).unlink(), text("adapter_model.bin", pickled())(to)),
    "only a pickle of torch": lambda to: (
        (to / TENSORS).unlink(),
        torch.save({"a": _Bomb()}, to / "pytorch_model.bin"),
    ),
    "another configuration for PEFT": text(
        CONFIG, '{"peft_type": "PROMPT_TUNING", "auto_mapping": {"x": "os.system"}}'
    ),
    "a configuration that is a pipe": instead(CONFIG, os.mkfifo),
}
REFUSED = {**MANIFESTS, **FILES}


def _first(held: dict[str, Any]) -> dict[str, Any]:
    return held[min(set(held) - {"__metadata__"})]


def _case(folder: Path) -> None:
    for name in (MANIFEST, TENSORS):
        shutil.copy(folder / name, folder / name.upper())


HARMLESS: dict[str, Change] = {
    "a method that starts from a path": edit(lambda held: held["method"].update(init="artifact", artifact="/etc")),
    "pickles beside": lambda to: [
        text(name, pickled())(to) for name in ("adapter_model.bin", "training_args.bin", "optimizer.pt")
    ],
    "code beside": lambda to: [
        text(name, f"open({BOMB!r}, 'w')")(to) for name in ("__init__.py", "sitecustomize.py", "torch.py")
    ],
    "another tokenizer beside": text("tokenizer.json", '{"model": {"type": "BPE", "vocab": {}, "merges": []}}'),
    "the same names in capitals beside": _case,
    "a pipe beside": lambda to: os.mkfifo(to / "README.txt"),
    "a card that is a pipe": instead("README.md", os.mkfifo),
    "a card that is a device": instead("README.md", lambda path: path.symlink_to("/dev/zero")),
    "numbers with another name": lambda to: os.link(to / TENSORS, to.parent / "linked"),
}
RUNS: dict[str, Change] = {
    "a run file that is a pipe": lambda to: os.mkfifo(to / "run.yaml"),
    "a run file that is a device": lambda to: (to / "run.yaml").symlink_to("/dev/zero"),
    "a run file of a terabyte": lambda to: sparse(1 << 40)(to / "run.yaml"),
    "a run file that multiplies": text(
        "run.yaml",
        "a0: &a0 [x]\n" + "".join(f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 9)}]\n" for at in range(1, 30)),
    ),
    "a run file that calls": text("run.yaml", f"base: !!python/object/apply:os.mkdir [{BOMB}]\n"),
}
"""Beside a good `artifact/` that nobody names a base for: the command is refused."""


def peft(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Another configuration of PEFT's."""

    def made(folder: Path) -> None:
        held = json.loads((folder / CONFIG).read_text())
        change(held)
        (folder / CONFIG).write_text(json.dumps(held))

    return made


def _numbers(change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    def made(folder: Path) -> None:
        held = load((folder / TENSORS).read_bytes())
        (folder / TENSORS).write_bytes(save({name: change(value) for name, value in held.items()}))

    return made


IMPORTED: dict[str, Change] = {
    "a pattern that never ends": peft(lambda held: held.update(target_modules="(a+)+$|(.*_proj.*)*x")),
    "a pattern that calls itself": peft(lambda held: held.update(target_modules="(?R)x")),
    "a rank of 10^9": peft(lambda held: held.update(r=10**9)),
    "a rank below zero": peft(lambda held: held.update(r=-1)),
    "an alpha that is none": lambda to: text(
        CONFIG, (to / CONFIG).read_text().replace('"lora_alpha": ', '"lora_alpha": NaN, "x": ')
    )(to),
    "a key twice": lambda to: text(CONFIG, (to / CONFIG).read_text().replace("{", '{"r": 2, ', 1))(to),
    "a million layers": peft(lambda held: held.update(layers_to_transform=list(range(100_000)))),
    "a layer of 10^18": peft(lambda held: held.update(layers_to_transform=[10**18])),
    "10,000 patterns of ranks": peft(lambda held: held.update(rank_pattern={f"(a+)+{at}$": 4 for at in range(10_000)})),
    "a module of another's": peft(lambda held: held.update(megatron_config={"a": 1}, megatron_core="evil")),
    "another tuner": peft(lambda held: held.update(peft_type="os.system")),
    "modules to save": peft(lambda held: held.update(modules_to_save=["lm_head"] * 1000)),
    "a configuration that is a pipe": instead(CONFIG, os.mkfifo),
    "a configuration that is a device": instead(CONFIG, lambda path: path.symlink_to("/dev/zero")),
    "a configuration nested 100,000 deep": text(CONFIG, "[" * 100_000),
    "a configuration of a terabyte": instead(CONFIG, sparse(1 << 40)),
    "only a pickle": lambda to: ((to / TENSORS).unlink(), text("adapter_model.bin", pickled())(to)),
    "a pickle by the right name": text(TENSORS, pickled()),
    "numbers of a terabyte": instead(TENSORS, sparse(1 << 40)),
    "numbers of four gigabytes": instead(TENSORS, sparse(3_900_000_000)),
    "numbers that are a pipe": instead(TENSORS, os.mkfifo),
    "numbers that are no numbers": _numbers(lambda value: value * float("nan")),
    "numbers of a row less": _numbers(lambda value: value[:-1].contiguous()),
}


def _members(change: Callable[[dict[str, Any]], Any]) -> Change:
    def made(folder: Path) -> None:
        held = json.loads((folder / "ensemble.json").read_text())
        change(held)
        del held["ensemble_sha256"]
        (folder / "ensemble.json").write_text(json.dumps({**held, "ensemble_sha256": digest_of(held)}))

    return made


def _inside(change: Change) -> Change:
    """A member changed, and its digest in the ensemble."""

    def made(folder: Path) -> None:
        member = sorted((folder / "members").iterdir())[0]
        change(member)

        def told(held: dict[str, Any]) -> None:
            for one in held["members"]:
                if one["name"] == member.name and (member / MANIFEST).is_file():
                    one["manifest_sha256"] = hashlib.sha256((member / MANIFEST).read_bytes()).hexdigest()

        _members(told)(folder)

    return made


ENSEMBLES: dict[str, Change] = {
    "a pipe for ensemble.json": instead("ensemble.json", os.mkfifo),
    "a device for ensemble.json": instead("ensemble.json", lambda path: path.symlink_to("/dev/zero")),
    "nested members": text("ensemble.json", '{"members":' * 100_000 + "1" + "}" * 100_000),
    "members twice": lambda to: text(
        "ensemble.json", (to / "ensemble.json").read_text().replace("{", '{"members": [], ', 1)
    )(to),
    "10,000 members": _members(lambda held: held.update(members=held["members"] * 5_000)),
    "a member above": _members(lambda held: held["members"][0].update(name="..")),
    "a member by a whole path": _members(lambda held: held["members"][0].update(name="/etc")),
    "a weight that is none": lambda to: text(
        "ensemble.json", (to / "ensemble.json").read_text().replace('"weight": ', '"weight": NaN, "x": ')
    )(to),
    "a weight below zero": _members(
        lambda held: [one.update(weight=w) for one, w in zip(held["members"], (-1.0, 2.0), strict=True)]
    ),
    "members that are a file": lambda to: (shutil.rmtree(to / "members"), text("members", "x")(to)),
    "an ensemble as a member": _inside(
        lambda to: (shutil.copy(to.parents[1] / "ensemble.json", to), (to / MANIFEST).unlink())
    ),
    "a member whose manifest is a pipe": _inside(instead(MANIFEST, os.mkfifo)),
    "a member with a pickle": _inside(tensors(lambda data: pickled())),
    "a member with a template bomb": _inside(_template("{{ text }}{{ 'a' * 10**9 }}")),
    "a member with a billion slots": _inside(_slots(10**9)),
}
