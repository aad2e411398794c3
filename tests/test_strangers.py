"""What comes from elsewhere names no base: digests decide, and nothing is loaded because a file says so."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from helpers import tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer
from safetensors.torch import load_file, save_file

from softprompt.artifact import check_base, load
from softprompt.base import Base, fingerprint
from softprompt.cli.console import base_of, run_of
from softprompt.errors import ArtifactError, BaseModelError, ConfigError, DataError, visible
from softprompt.runtime import Runtime
from softprompt.training import train


def save_base(folder: Path, family: str = "llama") -> Path:
    tiny_model(family).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A base's folder and the folder of a run on it."""
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTPROMPT_CACHE", str(root / "cache"))
        base = Base.load(save_base(root / "base"), device="cpu")
        train(base, tiny_task(), {"name": "soft", "length": 2}, root / "run", train={"max_steps": 1}, rows=tiny_rows())
    return root


@pytest.fixture
def cache(made, monkeypatch):
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(made / "cache"))


def changed(folder: Path, to: Path, change) -> Base:
    """The base with other weights in its file."""
    shutil.copytree(folder, to)
    tensors = load_file(to / "model.safetensors")
    change(tensors)
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return Base.load(to, device="cpu")


def noise(tensors) -> None:
    """All but a few evenly spread numbers of each tensor."""
    for value in tensors.values():
        flat, step = value.view(-1), max(1, value.numel() // 64)
        seen = torch.zeros(len(flat), dtype=torch.bool)
        seen[torch.arange(0, len(flat), step)[:64]] = True
        flat[~seen] = torch.randn(int((~seen).sum())) * flat.std()


def lowest_bit(tensors) -> None:
    """One bit of one weight, which bf16 does not see."""
    tensors["model.layers.1.mlp.up_proj.weight"].view(torch.int32).view(-1)[7] ^= 1


@pytest.mark.parametrize("change", [noise, lowest_bit])
def test_every_byte_of_a_base_counts(made, cache, tmp_path, change):
    other = changed(made / "base", tmp_path / "other", change)
    with pytest.raises(ArtifactError, match=r"belongs to base 'base'.*this is"):
        check_base(load(made / "run").manifest, other)


def test_one_checkpoint_is_one_base_however_it_is_held_and_lies(made, cache, tmp_path):
    manifest = load(made / "run").manifest
    for base in (
        Base.load(made / "base", dtype="bf16", device="cpu"),
        tiny_base(),
        Base(tiny_model("llama").to(torch.bfloat16), tiny_tokenizer()),
        changed(made / "base", tmp_path / "copy", lambda tensors: None),
    ):
        check_base(manifest, base)
    tensors, split = load_file(made / "base" / "model.safetensors"), tmp_path / "split"
    shutil.copytree(made / "base", split)
    (split / "model.safetensors").unlink()
    names = {"one.safetensors": sorted(tensors)[:3], "two.safetensors": sorted(tensors)[3:]}
    for file, own in names.items():
        save_file({name: tensors[name] for name in own}, split / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, own in names.items() for name in own}}
    (split / "model.safetensors.index.json").write_text(json.dumps(index))
    assert Base.load(split, device="cpu").identity.exact == manifest.base.checkpoint


def test_a_second_load_reads_no_weights_for_the_digest_and_a_changed_file_does(made, cache, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(made / "base", tmp_path / "base"))
    monkeypatch.setattr(fingerprint, "KEPT_FROM", 0)
    first = Base.load(folder, device="cpu").identity
    with monkeypatch.context() as patch:
        for name in ("exact_digest", "weights_digest"):
            patch.setattr(fingerprint, name, lambda *a: pytest.fail("computed again"))
            patch.setattr(f"softprompt.base.loading.{name}", lambda *a: pytest.fail("computed again"), raising=False)
        again = Base.load(folder, device="cpu").identity
    assert (again.model, again.exact) == (first.model, first.exact)
    file = folder / "model.safetensors"
    times, data = file.stat(), bytearray(file.read_bytes())
    data[-4] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # of the same size, and as old as before
    assert Base.load(folder, device="cpu").identity.exact != first.exact


def test_a_cache_that_cannot_be_written_is_done_without(made, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "file" / "x"))
    assert Base.load(made / "base", device="cpu").identity.exact == load(made / "run").manifest.base.checkpoint


@pytest.mark.parametrize("token", ["eos_token", "pad_token", "bos_token"])
def test_special_tokens_are_part_of_the_tokenizer(token):
    one, other = tiny_tokenizer(), tiny_tokenizer()
    setattr(other, token, "a")
    assert fingerprint.tokenizer_digest(one) == fingerprint.tokenizer_digest(tiny_tokenizer())
    assert fingerprint.tokenizer_digest(one) != fingerprint.tokenizer_digest(other)
    assert fingerprint.old_tokenizer_digest(one) == fingerprint.old_tokenizer_digest(other)  # of format 1


def test_the_tokenizer_of_a_folder_is_the_one_that_was_saved_there(made, cache):
    assert Base.load(made / "base", device="cpu").identity.tokenizer == tiny_base().identity.tokenizer


def test_artifacts_of_format_1_load_on_their_base_and_no_other(made, cache, tmp_path):
    base, other = tiny_base(), changed(made / "base", tmp_path / "other", lambda t: t["lm_head.weight"].add_(1))
    manifest = load(made / "run").manifest
    manifest = manifest.model_copy(update={"format_version": 1})
    manifest.base.digest, manifest.base.tokenizer_digest = base.identity.old
    check_base(manifest, base)
    with pytest.raises(ArtifactError, match="belongs to base"):
        check_base(manifest, other)


# ---------------------------------------------------------------- which base is loaded


def test_a_runs_own_base_is_found_and_a_strangers_is_not(made, cache, tmp_path, monkeypatch):
    assert base_of(made / "run", "base", None).name == str(made / "base")
    folder = Path(shutil.copytree(made / "run", tmp_path / "stranger"))
    assert base_of(folder, "base", None).name == str(made / "base")  # a copy of one's own run
    for alone, message in ((folder / "artifact", "made on base"), (folder, "give --base NAME-OR-FOLDER")):
        monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "elsewhere"))  # somebody else's machine
        with pytest.raises(ConfigError, match=message):
            base_of(alone, "stranger/base", None)
        assert run_of(alone) is None
    assert base_of(folder, "base", str(made / "base")).name == str(made / "base")
    assert base_of(made / "run" / "artifact", "smollm2", "smollm2").name == "smollm2"


def test_an_edited_run_file_names_nothing(made, cache, tmp_path):
    folder = Path(shutil.copytree(made / "run", tmp_path / "run"))
    file = folder / "run.yaml"
    file.write_text(file.read_text().replace(str(made / "base"), "someone/else"))
    with pytest.raises(ConfigError, match=r"someone/else.*--base"):
        base_of(folder, "base", None)
    assert run_of(folder) is None
    file.write_text(file.read_text().replace("someone/else", "smollm2"))
    assert base_of(folder, "base", None).name == "smollm2"


def test_a_base_or_data_that_moved_away(made, cache, tmp_path, monkeypatch):
    from softprompt.cli.evaluate import own_rows
    from softprompt.training import known

    folder = Path(shutil.copytree(made / "run", tmp_path / "run"))
    file = folder / "run.yaml"
    file.write_text(file.read_text().replace(str(made / "base"), str(tmp_path / "gone")))
    known.remember(file)
    with pytest.raises(ConfigError, match=r"gone.*not there any more; give --base"):
        base_of(folder, "base", None)
    run = run_of(folder)
    monkeypatch.setattr("softprompt.cli.evaluate.run_of", lambda path: run)
    run.task["data"] = {"source": str(tmp_path / "rows.jsonl")}
    with pytest.raises(DataError, match=r"no such file.*--data"):
        own_rows(folder, tiny_task(), "test")


def test_code_and_pickles_of_a_base_are_never_run(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *a: pytest.fail("asked on the terminal"))
    folder = save_base(tmp_path / "base")
    (folder / "evil.py").write_text("raise SystemExit(3)\nfrom transformers import LlamaConfig as C\n")
    config = folder / "config.json"
    plain = config.read_text()
    config.write_text(json.dumps({**json.loads(plain), "model_type": "other", "auto_map": {"AutoConfig": "evil.C"}}))
    with pytest.raises(BaseModelError):
        Base.load(folder, device="cpu")
    config.write_text(plain)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BaseModelError, match="safetensors"):
        Base.load(folder, device="cpu")


def test_an_adapters_folder_is_no_base(tmp_path):
    folder = save_base(tmp_path / "base")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else", "peft_type": "LORA"}')
    with pytest.raises(BaseModelError, match="holds an adapter"):
        Base.load(folder, device="cpu")


# ---------------------------------------------------------------- no path of the machine


@pytest.mark.parametrize("method", ["soft", "prefix", "lora"])
def test_equal_runs_on_copies_of_a_base_give_equal_bytes(made, cache, tmp_path, monkeypatch, method):
    shutil.copytree(made / "base", tmp_path / "deep" / "base")
    monkeypatch.chdir(tmp_path)
    for name, source in (("one", str(made / "base")), ("two", "deep/base"), ("three", "./deep/base")):
        base = Base.load(source, device="cpu")
        train(base, tiny_task(), method, tmp_path / name, train={"max_steps": 1}, rows=tiny_rows())
    files = [
        {file.name: file.read_bytes() for file in (tmp_path / name / "artifact").iterdir()}
        for name in ("one", "two", "three")
    ]
    assert files[0] == files[1] == files[2] and len(files[0]) == 4
    assert not any(word in data for data in files[0].values() for word in (b"deep/", str(made).encode()))
    assert json.loads(files[0]["adapter_config.json"])["base_model_name_or_path"] is None


@pytest.mark.parametrize(
    ("name", "public", "hub"),
    [
        ("smollm2", "smollm2", True),
        ("org/model", "org/model", True),
        ("/no/such/folder", "folder", False),
        ("a/b/c", "c", False),
        ("./model", "model", False),
    ],
)
def test_names_of_bases(name, public, hub):
    assert fingerprint.public_name(name) == public and fingerprint.is_folder(name) != hub


# ---------------------------------------------------------------- messages


def test_no_name_in_an_error_writes_to_the_terminal():
    odd = "x\x1b[2J\nerror: all is well\u202e\x9b"
    error = DataError(f"label {odd}", [f"a.jsonl:1: {odd}"])
    for text in (str(error), *error.problems, str(ConfigError(odd)), visible(odd)):
        assert text.isprintable() and "\\x1b[2J\\nerror" in text
    assert visible("naïve 日本語 “quoted”") == "naïve 日本語 “quoted”"


def test_serving_says_which_base_it_was_made_on(made, cache):
    with pytest.raises(ArtifactError, match="belongs to base 'base'"):
        Runtime(tiny_base("gpt2")).add("it", made / "run")


# ---------------------------------------------------------------- GGUF


def test_a_gguf_file_or_its_folder_is_a_base(tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    from gguf_maker import save_gguf

    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "given").mkdir()
    model, told = save_gguf(tmp_path / "given" / "tiny.gguf"), []
    base = Base.load(tmp_path / "given" / "tiny.gguf", device="cpu", progress=lambda *a: told.append(a))
    assert [done for what, done, _ in told] == [0, 1] and "converting tiny.gguf" in told[0][0]
    again = Base.load(tmp_path / "given", device="cpu", progress=lambda *a: pytest.fail("converted again"))
    assert (again.digest, again.identity.exact, base.identity.name) == (base.digest, base.identity.exact, "tiny.gguf")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.allclose(base.model(ids).logits, model(ids).logits, atol=1e-5)
    shutil.copy(tmp_path / "given" / "tiny.gguf", tmp_path / "given" / "other.gguf")
    with pytest.raises(BaseModelError, match=r"2 GGUF files \(other\.gguf, tiny\.gguf\); name one"):
        Base.load(tmp_path / "given", device="cpu")
    (tmp_path / "given" / "other.gguf").write_bytes(b"GGUF\x03\0\0\0 cut short")
    with pytest.raises(BaseModelError, match="cannot read this GGUF file") as error:
        Base.load(tmp_path / "given" / "other.gguf", device="cpu")
    assert str(error.value).isprintable()
    assert [path.name for path in (tmp_path / "cache" / "bases").iterdir()] == [Path(base.model.name_or_path).name]


def test_a_bundled_base_that_was_changed_is_told(made, tmp_path, monkeypatch):
    from softprompt.base import bundled

    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path))
    folder = Path(shutil.copytree(made / "base", tmp_path / "bases" / "smollm2"))
    weights = fingerprint.exact_digest(fingerprint.weight_files(folder))
    for source, fits in (({}, True), ({"weights": weights}, True), ({"weights": "0" * 64}, False)):
        (folder / "source.json").write_text(json.dumps(source))
        if fits:
            assert bundled.get("smollm2") == folder
        else:
            with pytest.raises(BaseModelError, match="softprompt base get smollm2"):
                bundled.get("smollm2")
