"""Artifacts: what is saved comes back, whatever happens meanwhile; what is wrong is refused in one line."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import save as to_bytes
from safetensors.torch import save_file

from softprompt.artifact import Artifact, Manifest, check_base, load, peft_format, read_peft, save
from softprompt.artifact.card import model_card
from softprompt.artifact.files import MAX_JSON_BYTES, parse_json
from softprompt.artifact.manifest import ShapeSpec
from softprompt.errors import ArtifactError, SoftpromptError

GOLDEN = Path(__file__).parent / "golden" / "soft_v1"
FILES = ["README.md", "adapter_model.safetensors", "manifest.json"]


def manifest_data(length: int = 2, hidden: int = 8) -> dict:
    """A manifest of a soft prompt as plain JSON."""
    return {
        "format_version": 1,
        "softprompt": "0.1.0",
        "method": {"name": "soft", "length": length, "init": "text"},
        "layout": {"stores": "embeddings", "place": "front", "length": length},
        "loads_in": "peft",
        "task": {"name": "tiny", "type": "classification", "verbalizer": {"good": ["good"], "bad|`x`": ["bad"]}},
        "base": {
            "id": "tiny-llama",
            "digest": "a" * 64,
            "dtype": "fp32",
            "tokenizer_digest": "b" * 64,
            "shape": {"layers": 3, "kv_heads": 2, "head_size": 4, "hidden_size": hidden, "vocab_size": 320},
        },
        "metrics": {"dev": {"metric": "accuracy", "value": 0.9, "interval": [0.8, 0.95], "rows": 100}},
        "training": {"seed": 0, "best_step": 12, "lr": 0.01, "schedule": "linear"},
        "data": {"digest": "c" * 64, "train": 1024, "dev": 100},
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "parameters": {"trained": length * hidden, "stored": length * hidden},
    }


def make(folder: Path, value: torch.Tensor | None = None, **changes) -> Artifact:
    value = torch.arange(16.0).view(2, 8) / 7 if value is None else value
    manifest = Manifest(**{**manifest_data(*value.shape), **changes})
    return save(folder, manifest, {"prompt_embeddings": value}, model_card(manifest))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def listing(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def rewrite(folder: Path, change) -> None:
    """Change the manifest as an attacker would: by hand."""
    file = folder / "manifest.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps(change(data) or data))


def put_tensors(folder: Path, data: bytes) -> None:
    """Put other tensors in, with the right digest."""
    (folder / "adapter_model.safetensors").write_bytes(data)
    rewrite(folder, lambda m: m.update(tensors_sha256=hashlib.sha256(data).hexdigest()))


def refused(folder: Path, *words: str) -> str:
    with pytest.raises(ArtifactError) as caught:
        load(folder)
    return one_clear_line(caught.value, *words)


def one_clear_line(error: BaseException, *words: str) -> str:
    message = str(error)
    assert message.isprintable() and len(message) < 1000, message
    for word in words:
        assert word in message, message
    return message


# ---------------------------------------------------------------- saving


def test_round_trip_from_any_float_type(tmp_path):
    value = torch.randn(8, 2, dtype=torch.bfloat16, requires_grad=True).t()  # neither fp32 nor contiguous nor detached
    saved = make(tmp_path / "a", value)
    found = load(tmp_path / "a")
    assert torch.equal(found.tensors["prompt_embeddings"], value.detach().float())
    assert found.manifest == saved.manifest and found.digest == saved.digest
    assert found.manifest.tensors["prompt_embeddings"].shape == [2, 8]
    assert sorted(contents(tmp_path / "a")) == FILES
    assert found.size == sum(map(len, contents(tmp_path / "a").values()))


def test_same_arguments_same_bytes(tmp_path):
    one, two = make(tmp_path / "a"), make(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    other = make(tmp_path / "c", torch.ones(2, 8))
    assert one.digest == two.digest != other.digest


def test_the_runs_folder_leads_to_its_artifact(tmp_path):
    make(tmp_path / "run" / "artifact")
    assert load(tmp_path / "run").path == tmp_path / "run" / "artifact"


def test_nothing_stored(tmp_path):
    data = {**manifest_data(), "layout": {"stores": "none", "place": "none", "length": 0}, "method": {"name": "hard"}}
    data["parameters"] = {"trained": 0, "stored": 0}
    save(tmp_path / "a", Manifest(**data), {}, "card")
    found = load(tmp_path / "a")
    assert found.tensors == {} and found.manifest.tensors_sha256 is None
    assert sorted(contents(tmp_path / "a")) == ["README.md", "manifest.json"]
    (tmp_path / "a" / "adapter_model.safetensors").write_bytes(to_bytes({"x": torch.ones(1)}))
    refused(tmp_path / "a", "names no tensors")


def test_a_real_size_is_small(tmp_path):
    shape = {"layers": 30, "kv_heads": 3, "head_size": 64, "hidden_size": 576, "vocab_size": 49152}
    base = {**manifest_data()["base"], "shape": shape}
    made = make(tmp_path / "a", torch.randn(20, 576), base=base)
    assert made.size <= 60_000
    assert made.size - 20 * 576 * 4 <= 10_000


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_modes_follow_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        make(tmp_path / "a")
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "a").iterdir()} == {mode}


def test_nothing_is_left_beside_it(tmp_path):
    for _ in range(3):
        make(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty")
    assert listing(tmp_path) == ["a", "empty"]


def test_without_the_kernels_exchange(tmp_path, monkeypatch):
    make(tmp_path / "a")
    monkeypatch.setattr("softprompt.storage._exchange", lambda *a: False)
    make(tmp_path / "a", torch.ones(2, 8))
    assert load(tmp_path / "a").tensors["prompt_embeddings"].eq(1).all()
    assert listing(tmp_path) == ["a"]


def test_saving_through_a_link_keeps_the_link(tmp_path):
    make(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    make(tmp_path / "link", torch.ones(2, 8))
    assert (tmp_path / "link").is_symlink()
    assert load(tmp_path / "real").tensors["prompt_embeddings"].eq(1).all()


@pytest.mark.parametrize("names", [["thesis.txt"], ["manifest.json"], ["README.md"], ["manifest.json", "notes.md"]])
def test_other_peoples_folders_are_left_alone(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ArtifactError) as caught:
        make(tmp_path)
    one_clear_line(caught.value, "choose another folder")
    assert listing(tmp_path) == sorted(names)


def test_an_artifact_with_someones_notes_is_left_alone(tmp_path):
    make(tmp_path / "a")
    (tmp_path / "a" / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"notes\.txt"):
        make(tmp_path / "a")


def test_a_file_is_not_overwritten(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(ArtifactError, match="choose another folder"):
        make(tmp_path / "a")
    with pytest.raises(SoftpromptError) as caught:
        make(tmp_path / "a" / "below")
    one_clear_line(caught.value)
    assert (tmp_path / "a").read_text() == "mine"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_bad_numbers_are_refused_before_anything_is_written(tmp_path, bad):
    make(tmp_path / "a")
    before = contents(tmp_path / "a")
    value = torch.zeros(2, 8)
    value[1, 3] = bad
    for folder in ("a", "new"):
        with pytest.raises(ArtifactError, match="1 NaN or infinite of 16"):
            make(tmp_path / folder, value)
    assert contents(tmp_path / "a") == before and listing(tmp_path) == ["a"]


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    def attempt(values, adapter_config=None, **changes):
        manifest = Manifest(**{**manifest_data(), **changes})
        with pytest.raises(ArtifactError) as caught:
            save(tmp_path / "a", manifest, values, "card", adapter_config)
        assert not listing(tmp_path)
        return one_clear_line(caught.value)

    good = {"prompt_embeddings": torch.ones(2, 8)}
    assert "float" in attempt({"prompt_embeddings": torch.ones(2, 8, dtype=torch.long)})
    assert "[3, 8]" in attempt({"prompt_embeddings": torch.ones(3, 8)})
    assert "'kv'" in attempt({"kv": torch.ones(2, 8)})
    assert "[2, 9]" in attempt(good, tensors={"prompt_embeddings": {"shape": [2, 9]}})
    attempt(good, training={"lr": float("nan")})
    attempt(good, training={"note": "\ud800"})
    attempt(good, {"x": object()})
    attempt({"prompt_embeddings": torch.full((2, 8), 1e300, dtype=torch.float64)})  # infinite in fp32


# ---------------------------------------------------------------- disks and kills


@pytest.mark.parametrize("point", ["write", "fsync"])
def test_a_full_disk_leaves_the_earlier_artifact(tmp_path, monkeypatch, point):
    make(tmp_path / "a")
    before = contents(tmp_path / "a")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync", full) if point == "fsync" else (Path, "write_bytes", full)))
        with pytest.raises(SoftpromptError) as caught:
            make(tmp_path / "a", torch.ones(2, 8))
    one_clear_line(caught.value, str(tmp_path / "a") + ":", "No space left", "free space")
    assert contents(tmp_path / "a") == before and listing(tmp_path) == ["a"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root, to mount a tiny disk")
def test_a_really_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount here")
    try:
        make(disk / "a")
        before = contents(disk / "a")
        with pytest.raises(SoftpromptError) as caught:
            make(disk / "a", torch.ones(100, 400))
        one_clear_line(caught.value, "free space")
        assert contents(disk / "a") == before and listing(disk) == ["a"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


KILLER = """
    import os, random, signal, sys, time
    import torch
    torch.set_num_threads(1)  # nothing but this thread may live when we fork
    from softprompt.artifact import Manifest, load, save
    from softprompt.artifact.card import model_card
    folder, manifest = sys.argv[1], Manifest.from_json(sys.argv[2], "test")
    def write(value):
        save(folder, manifest, {"prompt_embeddings": torch.full((2, 8), float(value))}, model_card(manifest))
    write(0)
    rng, seen = random.Random(0), set()
    for start in range(int(sys.argv[3])):
        child = os.fork()
        if child == 0:
            try:
                for value in range(1000):
                    write(1000 * start + value)
            finally:
                os._exit(1)
        try:
            until = time.monotonic() + rng.uniform(0.005, 0.1)
            while time.monotonic() < until:
                seen.add(float(load(folder).tensors["prompt_embeddings"][0, 0]))
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        load(folder)
    print(len(seen))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork and the kernel's exchange of names")
@pytest.mark.parametrize("kills", [12, pytest.param(40, marks=pytest.mark.full)])
def test_kill_and_concurrent_reads_always_find_a_whole_artifact(tmp_path, kills, forks):
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(KILLER),
        str(tmp_path / "a"),
        json.dumps(manifest_data()),
        str(kills),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 1  # the reads did meet writes (of a busy machine few)


# ---------------------------------------------------------------- refusals


@pytest.fixture
def folder(tmp_path) -> Path:
    make(tmp_path / "a")
    return tmp_path / "a"


def test_places_that_are_no_artifact(tmp_path, folder):
    refused(tmp_path / "none", "no such folder")
    refused(folder / "README.md", "is a file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no manifest.json")
    (tmp_path / "empty" / "adapter_config.json").write_text("{}")
    refused(tmp_path / "empty", "PEFT")


def test_newer_format_comes_before_all_else(folder):
    rewrite(folder, lambda m: {"format_version": 7, "brand_new": True})
    refused(folder, "version 7", "up to 2", "pip install -U")


@pytest.mark.parametrize("version", [None, "1", 1.0, True, 0, -1, [1], {}])
def test_odd_format_versions(folder, version):
    rewrite(folder, lambda m: m.update(format_version=version))
    refused(folder, "format_version")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda m: m.update(metods={}), "metods"),
        (lambda m: m["base"].update(url="http://x"), "base.url"),
        (lambda m: m.__delitem__("base"), "'base'"),
        (lambda m: m.update(method=[]), "method"),
        (lambda m: m.update(method={"name": 3}), "name"),
        (lambda m: m.update(task={}), "task"),
        (lambda m: m.update(kind="decoder"), "kind"),
        (lambda m: m["layout"].update(length="2"), "layout.length"),
        (lambda m: m["layout"].update(length=3), "[3, 8]"),
        (lambda m: m["layout"].update(layers=2), "train it again"),
        (lambda m: m["layout"].update(stores="kv"), "[2, 48]"),
        (lambda m: m["layout"].update(stores="kv", place="infix"), "'infix_kv'"),
        (lambda m: m["base"]["shape"].update(hidden_size=9), "[2, 9]"),
        (lambda m: m["base"]["shape"].update(layers=0), "layers"),
        (lambda m: m["base"]["shape"].update(kv_heads=[2, "x"]), "kv_heads"),
        (lambda m: m.update(tensors_sha256=None), "sha256"),
        (lambda m: m.update(tensors_sha256="0" * 64), "0000"),
        (lambda m: m.update(tensors_sha256="../../etc/passwd"), "tensors_sha256"),
        (lambda m: m.update(tensors={}), "stores the one tensor"),
        (lambda m: m["tensors"].update({"../../x": {"shape": [1], "dtype": "float32"}}), "../../x"),
        (lambda m: m["tensors"]["prompt_embeddings"].update(dtype="float64"), "float32"),
        (lambda m: m["tensors"]["prompt_embeddings"].update(shape=[2, -8]), "shape"),
        (lambda m: m["tensors"]["prompt_embeddings"].update(shape=[2] * 99), "shape"),
        (lambda m: m["metrics"]["dev"].update(interval=[0.1]), "interval"),
        (lambda m: m["metrics"]["dev"].update(value=None), "value"),
        (lambda m: m.update(parameters={}), "trained"),
        (lambda m: m.update(versions={"torch": 2}), "versions"),
        (lambda m: m.update({"\x1b[2J\nkey": 1}), "unknown key"),
        (lambda m: m.update({f"key{i}": 1 for i in range(5000)}), "unknown key"),
        (lambda m: [m], "got list"),
    ],
)
def test_changed_manifests(folder, change, word):
    rewrite(folder, change)
    refused(folder, word)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"x"',
        "{",
        '{"format_version": 1, "format_version": 1}',
        '{"format_version": NaN}',
        '{"format_version": 1, "x": -Infinity}',
        '{"format_version": 1, "x": 1e999}',
        '{"format_version": ' + "9" * 5000 + "}",
        '{"format_version": 1, "x": "\\ud800"}',
        "[" * 100_000,
        '{"x":' * 100_000,
        '{"format_version": 1, "task": ' + "[" * 500 + "]" * 500 + "}",
        "\ufeff{}",
        "\x80\x02}q\x00.",
    ],
)
def test_manifests_that_are_no_manifest(folder, text):
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    refused(folder, "manifest.json")


def test_odd_manifest_files(folder, tmp_path):
    file = folder / "manifest.json"
    file.write_bytes(b"\xff\xfe{}")
    refused(folder, "UTF-8")
    with file.open("wb") as big:
        big.truncate(MAX_JSON_BYTES + 1)
    refused(folder, "1,000,001")
    file.unlink()
    file.mkdir()
    refused(folder, "not a regular file")
    file.rmdir()
    os.mkfifo(file)
    refused(folder, "not a regular file")  # opening it would wait for ever
    file.unlink()
    file.symlink_to("/etc/hostname")
    refused(folder, "outside the folder")
    file.unlink()
    file.symlink_to("manifest.json")
    refused(folder, "manifest.json")


def test_changed_tensors(folder):
    file = folder / "adapter_model.safetensors"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    refused(folder, "sha256", "copy the artifact again")
    file.write_bytes(good[:-4])
    refused(folder, "sha256")
    file.unlink()
    refused(folder, "no such file")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (to_bytes({"other": torch.ones(2, 8)}), "lacks 'prompt_embeddings'"),
        (to_bytes({"prompt_embeddings": torch.ones(2, 8), "x\n": torch.ones(1)}), "holds 'x"),
        (to_bytes({"prompt_embeddings": torch.ones(8, 2)}), "[8, 2]"),
        (to_bytes({"prompt_embeddings": torch.ones(2, 8).half()}), "float16"),
        (to_bytes({"prompt_embeddings": torch.ones(2, 8).double()}), "float64"),
        (to_bytes({"prompt_embeddings": torch.full((2, 8), float("nan"))}), "16 NaN"),
        (to_bytes({"prompt_embeddings": torch.tensor([[float("inf")] + [0.0] * 7] * 2)}), "2 NaN or infinite"),
        (to_bytes({"prompt_embeddings": torch.ones(2, 8)})[:-3], "safetensors"),
        (to_bytes({"prompt_embeddings": torch.ones(2, 8)}) + b"tail", "safetensors"),
        (b"", "safetensors"),
        (b"\x80\x04cos\nsystem\n(S'touch /tmp/pwned'\ntR.", "safetensors"),
        (struct.pack("<Q", 2**63) + b"{}", "safetensors"),
        (struct.pack("<Q", 2) + b"[]", "safetensors"),
        (struct.pack("<Q", 200_000) + b"[" * 200_000, "safetensors"),
    ],
)
def test_hostile_tensors_with_the_right_digest(folder, data, word):
    put_tensors(folder, data)
    refused(folder, word)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 64]},
        {"dtype": "F32", "shape": [2, 8], "data_offsets": [0, 2**62]},
        {"dtype": "F32", "shape": [2, 8], "data_offsets": [64, 0]},
        {"dtype": "X32", "shape": [2, 8], "data_offsets": [0, 64]},
        {"dtype": "BOOL", "shape": [64], "data_offsets": [0, 64]},
        {"dtype": "F8_E4M3", "shape": [64], "data_offsets": [0, 64]},
        {"dtype": "F32", "shape": [2, -8], "data_offsets": [0, 64]},
    ],
)
def test_hostile_safetensors_headers(folder, entry):
    header = json.dumps({"prompt_embeddings": entry}).encode()
    put_tensors(folder, struct.pack("<Q", len(header)) + header + bytes(64))
    refused(folder, "adapter_model.safetensors")


def test_sizes_are_compared_before_reading(folder):
    with (folder / "adapter_model.safetensors").open("wb") as sparse:
        sparse.truncate(1 << 40)
    refused(folder, "1,099,511,627,776 bytes")
    rewrite(folder, lambda m: m["tensors"]["prompt_embeddings"].update(shape=[10**19, 10**19]))
    refused(folder, "prompt_embeddings")


def test_links_out_of_the_folder(folder, tmp_path):
    file = folder / "adapter_model.safetensors"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    refused(folder, "outside the folder", "cp -rL")
    (tmp_path / "elsewhere").rename(folder / "inside")
    file.unlink()
    file.symlink_to("inside")
    load(folder)


def test_pickles_are_never_opened(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "boom"),)

    torch.save(Bomb(), folder / "adapter_model.bin")
    load(folder)  # ignored beside the real thing
    (folder / "adapter_model.safetensors").unlink()
    refused(folder, "adapter_model.bin", "pickle", "safetensors")
    (folder / "adapter_model.bin").rename(folder / "adapter_model.safetensors")
    refused(folder, "not a whole safetensors file")
    assert not (tmp_path / "boom").exists()


def some_base(name: str, model: str, tokenizer: str, exact: str | None = None, old: tuple[str, str] = ("", "")):
    """What `check_base` reads of a base, with digests of these letters."""
    identity = SimpleNamespace(model=model * 64, tokenizer=tokenizer * 64, exact=exact and exact * 64)
    identity.old = tuple(letter * 64 for letter in old)
    return SimpleNamespace(name=name, identity=identity, shape=ShapeSpec(**manifest_data()["base"]["shape"]))


def test_wrong_base_or_tokenizer():
    manifest = Manifest(**{**manifest_data(), "format_version": 2})
    check_base(manifest, some_base("any name", "a", "b", "c"))
    with pytest.raises(ArtifactError) as caught:
        check_base(manifest, some_base("gpt2", "d", "b"))
    one_clear_line(caught.value, "tiny-llama", "aaaaaaaaaaaa", "gpt2", "dddddddddddd")
    with pytest.raises(ArtifactError) as caught:
        check_base(manifest, some_base("gpt2", "a", "e"))
    one_clear_line(caught.value, "tokenizer", "bbbbbbbbbbbb", "eeeeeeeeeeee")
    manifest.base.checkpoint = "c" * 64
    check_base(manifest, some_base("made in memory", "a", "b"))
    with pytest.raises(ArtifactError, match=r"c{12}.*f{12}"):
        check_base(manifest, some_base("gpt2", "a", "b", "f"))
    manifest.base.shape.layers += 1
    with pytest.raises(ArtifactError, match=r"has layers \d+, it has \d+; the artifact was changed"):
        check_base(manifest, some_base("any name", "a", "b", "c"))


def test_artifacts_of_format_1_are_compared_with_the_digests_of_their_time():
    manifest = Manifest(**manifest_data())
    check_base(manifest, some_base("any name", "x", "y", "z", old=("a", "b")))
    with pytest.raises(ArtifactError, match="belongs to base"):
        check_base(manifest, some_base("any name", "a", "b", old=("x", "b")))


def test_random_damage_is_refused_or_harmless(folder):
    import random

    rng = random.Random(0)
    good = {name: (folder / name).read_bytes() for name in ("manifest.json", "adapter_model.safetensors")}
    value = load(folder).tensors["prompt_embeddings"]
    for _ in range(300):
        name = rng.choice(list(good))
        data = bytearray(good[name])
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (folder / name).write_bytes(bytes(data[: rng.choice([len(data), rng.randrange(len(data))])]))
        try:
            assert torch.equal(load(folder).tensors["prompt_embeddings"], value)
        except ArtifactError as error:
            one_clear_line(error)
        (folder / name).write_bytes(good[name])


def test_json_is_read_strictly():
    assert parse_json('{"a": [1, 2.5, "ü", null, true, -7]}', "x") == {"a": [1, 2.5, "ü", None, True, -7]}
    with pytest.raises(ArtifactError, match="key 'a' twice"):
        parse_json('{"a": 1, "a": 2}', "x")


# ---------------------------------------------------------------- what we once saved must load for ever


def test_manifests_that_say_of_no_layers_that_they_are_all(folder):
    rewrite(folder, lambda m: m["layout"].update(layers=None))
    assert load(folder).manifest.layout.length == 2


def test_golden_artifact_of_format_1():
    found = load(GOLDEN)
    assert found.manifest.format_version == 1 and found.manifest.method == {"name": "soft", "length": 2, "init": "text"}
    assert found.manifest.metrics["dev"].interval == [0.8, 0.95]
    assert torch.equal(found.tensors["prompt_embeddings"], torch.arange(16.0).view(2, 8) / 8 - 1)
    assert found.manifest.tensors_sha256 == "85cbb0a1f7a17659040c293cf7f493d1d19be8b93c0653b3218c252356d010d4"
    method, tensors, _ = read_peft(GOLDEN)
    assert method == "soft" and torch.equal(tensors["prompt_embeddings"], found.tensors["prompt_embeddings"])


# ---------------------------------------------------------------- the card


def test_the_card_is_valid_and_says_what_matters(folder):
    manifest = load(folder).manifest
    card = model_card(manifest)
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["base_model"] == "tiny-llama" and front["library_name"] == "softprompt" and "peft" in front["tags"]
    for word in ("0.9000", "0.8000 – 0.9500", "1,024 train", "PeftModel.from_pretrained", "best_step", "`bad|'x'`"):
        assert word in card, word
    assert card == model_card(manifest) and len(card) < 5000


def test_the_card_of_hostile_and_bare_manifests(folder):
    bare = {"layout": {"stores": "none", "place": "none", "length": 0}, "task": None, "data": None, "loads_in": None}
    data = {**manifest_data(), **bare}
    data |= {"metrics": {}, "versions": {}, "training": {}, "method": {"name": 'x"\n---\nlibrary_name: evil'}}
    data["base"]["id"] = "a: b\n# c"
    card = model_card(Manifest(**data))
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["library_name"] == "softprompt" and front["base_model"] == "a: b\n# c"
    assert "Not measured" in card and "PeftModel" not in card and "\n# c" not in card


# ---------------------------------------------------------------- PEFT

peft = pytest.importorskip("peft")
L, G, P, D, H = 3, 2, 4, 4, 16
SHAPE = {"layers": L, "kv_heads": G, "head_size": D, "hidden_size": H, "vocab_size": 50}


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"num_hidden_layers": L, "num_attention_heads": 4, "num_key_value_heads": G, "intermediate_size": 32}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, hidden_size=H, max_position_embeddings=64, **sizes)).eval()
    for weight in model.parameters():
        weight.data.mul_(6.0 if weight.dim() == 2 else 1.0)  # attention far from uniform
    return model


def peft_artifact(folder: Path, method: str, value: torch.Tensor) -> Artifact:
    from softprompt.base.model import BaseShape

    config = getattr(peft_format, f"{method}_config")("tiny", P, BaseShape(**SHAPE))
    layout = {"stores": "embeddings" if method == "soft" else "kv", "place": "front", "length": P}
    data = {**manifest_data(), "layout": layout, "method": {"name": method, "length": P}}
    data["base"]["shape"], data["parameters"]["stored"] = SHAPE, value.numel()
    manifest = Manifest(**data)
    return save(folder, manifest, {"prompt_embeddings": value}, model_card(manifest), config)


IDS = torch.tensor([[3, 7, 11, 19, 2], [5, 1, 1, 30, 49]])


@torch.no_grad()
def test_plain_peft_loads_our_soft_prompt(tmp_path):
    model, value = llama(), torch.randn(P, H)
    embedded = torch.cat([value.expand(2, P, H), model.get_input_embeddings()(IDS)], dim=1)
    want = model(inputs_embeds=embedded).logits
    peft_artifact(tmp_path / "a", "soft", value)
    found = peft.PeftModel.from_pretrained(llama(), tmp_path / "a")(input_ids=IDS).logits
    assert torch.allclose(found, want, atol=1e-5) and not torch.allclose(want[:, P:], model(IDS).logits, atol=1e-2)


@torch.no_grad()
def test_plain_peft_loads_our_prefix_under_grouped_queries(tmp_path):
    from transformers import DynamicCache

    model, kv = llama(), torch.randn(L, 2, G, P, D)
    cache = DynamicCache()
    for layer in range(L):
        cache.update(kv[layer, 0].expand(2, G, P, D), kv[layer, 1].expand(2, G, P, D), layer)
    want = model(IDS, past_key_values=cache, attention_mask=torch.ones(2, P + IDS.shape[1])).logits
    peft_artifact(tmp_path / "a", "prefix", peft_format.kv_to_peft(kv))
    found = peft.PeftModel.from_pretrained(llama(), tmp_path / "a")
    logits = found(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
    assert torch.allclose(logits, want, atol=1e-5) and not torch.allclose(want, model(IDS).logits, atol=1e-2)
    method, tensors, _ = read_peft(tmp_path / "a")
    assert method == "prefix" and torch.equal(tensors["kv"], kv)


def test_infix_is_stored_as_it_is_and_plain_peft_does_not_load_it(tmp_path):
    kv = torch.randn(L, 2, G, P, D)
    data = {**manifest_data(), "layout": {"stores": "kv", "place": "infix", "length": P}, "loads_in": None}
    data["base"]["shape"], data["parameters"]["stored"] = SHAPE, kv.numel()
    save(tmp_path / "a", Manifest(**data), {"infix_kv": kv}, "card")
    assert torch.equal(load(tmp_path / "a").tensors["infix_kv"], kv)
    with pytest.raises(ArtifactError, match="no adapter_config"):
        read_peft(tmp_path / "a")


def test_prefix_layout_there_and_back():
    kv = torch.randn(L, 2, G, P, D)
    assert torch.equal(peft_format.kv_from_peft(peft_format.kv_to_peft(kv), L, G, D), kv)
    with pytest.raises(ArtifactError, match=r"\[P, 48\]"):
        peft_format.kv_from_peft(torch.ones(P, 47), L, G, D)


@pytest.mark.parametrize("kind", ["soft", "p_tuning", "prefix", "projected"])
def test_folders_made_by_peft(tmp_path, kind):
    common = {"task_type": "CAUSAL_LM", "num_virtual_tokens": P}
    config = {
        "soft": lambda: peft.PromptTuningConfig(**common),
        "p_tuning": lambda: peft.PromptEncoderConfig(**common, encoder_hidden_size=8),
        "prefix": lambda: peft.PrefixTuningConfig(**common),
        "projected": lambda: peft.PrefixTuningConfig(**common, prefix_projection=True, encoder_hidden_size=8),
    }[kind]()
    model = peft.get_peft_model(llama(), config).eval()
    model.save_pretrained(tmp_path)
    method, tensors, found = read_peft(tmp_path)
    assert found["peft_type"] == config.peft_type.value
    with torch.no_grad():
        held = model.get_prompt(1)
    if kind in ("soft", "p_tuning"):
        assert method == "soft" and torch.equal(tensors["prompt_embeddings"], held[0])
        return
    assert method == "prefix" and list(tensors["kv"].shape) == [L, 2, G, P, D]
    for layer in range(L):
        assert torch.equal(tensors["kv"][layer, 0], held.layers[layer].keys[0])
        assert torch.equal(tensors["kv"][layer, 1], held.layers[layer].values[0])


@pytest.fixture
def peft_folder(tmp_path) -> Path:
    from softprompt.base.model import BaseShape

    config = peft_format.prefix_config("https://evil.example/x", P, BaseShape(**SHAPE))
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file({"prompt_embeddings": torch.ones(P, L * 2 * G * D)}, tmp_path / "adapter_model.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peft_type": "LORA"}, ["LORA", "PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"]),
        ({"peft_type": ["PREFIX_TUNING"]}, ["peft_type"]),
        ({"peft_type": None}, ["peft_type"]),
        ({"task_type": "SEQ_CLS"}, ["SEQ_CLS", "CAUSAL_LM"]),
        ({"num_transformer_submodules": 2}, ["decoder-only"]),
        ({"num_virtual_tokens": True}, ["num_virtual_tokens"]),
        ({"num_virtual_tokens": 10**15}, ["num_virtual_tokens", "adapter_model"]),
        ({"num_attention_heads": 3}, ["multiple"]),
        ({"num_layers": 2}, ["[4, 32]"]),
        ({"token_dim": "x\n"}, ["token_dim"]),
    ],
)
def test_peft_configurations_that_do_not_fit(peft_folder, change, words):
    file = peft_folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ArtifactError) as caught:
        read_peft(peft_folder)
    message = one_clear_line(caught.value)
    assert any(word in message for word in words) if "adapter_model" in words else all(w in message for w in words)


def test_peft_folders_that_are_refused(peft_folder, tmp_path):
    assert read_peft(peft_folder)[0] == "prefix"  # the URL of the base is not followed
    file = peft_folder / "adapter_model.safetensors"
    for tensors, word in (
        ({"prompt_embeddings": torch.full((P, 48), float("nan"))}, "NaN"),
        ({"prompt_embeddings": torch.ones(P, 48), "base_model.score.weight": torch.ones(2)}, "score.weight"),
        ({"prompt_embeddings": torch.ones(P, 48, dtype=torch.int64)}, "int64"),
    ):
        save_file(tensors, file)
        with pytest.raises(ArtifactError) as caught:
            read_peft(peft_folder)
        one_clear_line(caught.value, word)
    file.rename(peft_folder / "adapter_model.bin")
    with pytest.raises(ArtifactError, match="pickle"):
        read_peft(peft_folder)
    shutil.rmtree(peft_folder)
    with pytest.raises(ArtifactError, match="no such folder"):
        read_peft(peft_folder)
