"""Bases that are damaged, or that their settings do not fit: each is refused in a line that names what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from models import MASKED, SEQ2SEQ, tiny_model, tiny_tokenizer
from safetensors.torch import load_file, save_file

from softprompt.base import Base
from softprompt.errors import BaseModelError

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model folder of each of some families, and one in several files."""
    root = tmp_path_factory.mktemp("made")
    for name in ("llama", "bert", "t5", "sharded"):
        family = "llama" if name == "sharded" else name
        size = {"max_shard_size": "200KB"} if name == "sharded" else {}
        tiny_model(family).save_pretrained(root / name, **size)
        tiny_tokenizer(frame="masked" if name in MASKED else "seq2seq" if name in SEQ2SEQ else "").save_pretrained(
            root / name
        )
    return root


def tensors(change):
    def apply(folder: Path):
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS, metadata={"format": "pt"})

    return apply


def setting(file: str = CONFIG, **values):
    def apply(folder: Path):
        found = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**found, **values}))

    return apply


def number(name: str, value: float):
    return tensors(lambda found: found[name].view(-1)[-1:].fill_(value))


def bytes_of(file: str, change):
    return lambda folder: (folder / file).write_bytes(change((folder / file).read_bytes()))


def files_named(name: str):
    def apply(folder: Path):
        names = json.loads((folder / INDEX).read_text())["weight_map"]
        setting(INDEX, weight_map=dict.fromkeys(names, name))(folder)

    return apply


def pickled(folder: Path):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


Q = "model.layers.1.self_attn.q_proj"
DAMAGES = {
    "NaN": ("llama", number(f"{Q}.weight", float("nan")), f"{Q}.weight holds numbers that are none"),
    "infinity": ("llama", number("model.embed_tokens.weight", float("inf")), "embed_tokens.weight holds numbers"),
    "zeros": (
        "llama",
        tensors(lambda found: [found[name].zero_() for name in sorted(found)[:12]]),
        r"of the base's 23 matrices \d+ are all zeros, lm_head.weight among them",
    ),
    "fewer layers": (
        "llama",
        setting(num_hidden_layers=2),
        r"holds model\.layers\.2.* says 2 layers",
    ),
    "fewer layers of an encoder": ("bert", setting(num_hidden_layers=2), "holds bert.encoder.layer.2"),
    "fewer layers of a decoder": ("t5", setting(num_decoder_layers=1), "holds decoder.block.1"),
    "more layers": ("llama", setting(num_hidden_layers=4), r"does not hold model\.layers\.3"),
    "a weight missing": ("llama", tensors(lambda found: found.pop(f"{Q}.weight")), f"does not hold {Q}.weight"),
    "a bias more": (
        "llama",
        tensors(lambda found: found.update({f"{Q}.bias": torch.ones(64)})),
        f"holds {Q}.bias, which its config.json leaves out",
    ),
    "scales": ("llama", tensors(lambda found: found.update({f"{Q}.weight_scale": torch.ones(1)})), "weight_scale"),
    "other sizes": ("llama", setting(intermediate_size=100), "other sizes than its config.json says"),
    "cut short": (
        "llama",
        bytes_of(WEIGHTS, lambda data: data[:-1000]),
        r"has [\d,]+ of [\d,]+ bytes; copy the base again",
    ),
    "Git LFS": ("llama", bytes_of(WEIGHTS, lambda _: b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "a pickle": ("llama", pickled, "a pickle, which can run code"),
    "another file": ("sharded", files_named("../other.safetensors"), "a file outside the folder"),
    "an absolute file": ("sharded", files_named("/tmp/other.safetensors"), "a file outside the folder"),
    "a Windows file": ("sharded", files_named("..\\other.safetensors"), "a file outside the folder"),
    "a number for a file": ("sharded", files_named(3), "does not say which file holds which weight"),
    "an index without files": (
        "sharded",
        bytes_of(INDEX, lambda _: b"{}"),
        "does not say which file holds which weight",
    ),
    "settings cut short": ("llama", bytes_of(CONFIG, lambda data: data[:50]), r"config\.json cannot be read"),
    "a tokenizer cut short": (
        "llama",
        bytes_of("tokenizer.json", lambda data: data[:500]),
        r"tokenizer\.json cannot be read",
    ),
    "end tokens cut short": (
        "llama",
        bytes_of("generation_config.json", lambda data: data[:20]),
        "generation_config.json cannot",
    ),
    "end tokens of a list": (
        "llama",
        bytes_of("generation_config.json", lambda _: b"[]"),
        "generation_config.json holds no",
    ),
    "no such rotation": ("llama", setting(rope_scaling={"rope_type": "foo"}), "its settings say 'foo'"),
}


@pytest.mark.parametrize("name", sorted(DAMAGES))
def test_a_damaged_base_is_refused(made, tmp_path, name):
    family, damage, words = DAMAGES[name]
    damage(Path(shutil.copytree(made / family, tmp_path / "base")))
    with pytest.raises(BaseModelError, match=words) as caught:
        Base.load(tmp_path / "base", device="cpu")
    assert str(caught.value).isprintable()


EXTRAS = {
    "rotary frequencies": {"model.layers.0.self_attn.rotary_emb.inv_freq": (8,)},
    "a layer for more tokens": {
        "model.layers.3.input_layernorm.weight": (64,),
        "model.layers.3.eh_proj.weight": (64, 128),
    },
    "another head": {"value_head.weight": (1, 64)},
}


@pytest.mark.parametrize("name", sorted(EXTRAS))
def test_what_a_model_does_not_run_with_may_lie_beside(made, tmp_path, name):
    folder = Path(shutil.copytree(made / "llama", tmp_path / "base"))
    tensors(lambda found: found.update({key: torch.ones(shape) for key, shape in EXTRAS[name].items()}))(folder)
    assert Base.load(folder, device="cpu").shape.layers == 3


def test_names_that_are_no_folder(made):
    for name, words in (("a" * 5000, "a name of 5,000 characters"), (str(made / "llama" / CONFIG), "is a file")):
        with pytest.raises(BaseModelError, match=words):
            Base.load(name, device="cpu")


def test_a_model_in_memory_with_numbers_that_are_none():
    model = tiny_model("llama")
    model.model.layers[1].self_attn.q_proj.weight.data[5:9] = float("nan")
    with pytest.raises(BaseModelError, match="gives no numbers"):
        Base(model, tiny_tokenizer(), "mine")


# ---------------------------------------------------------------- GGUF


def swapped(old: bytes, new: bytes):
    return lambda data: data.replace(old, new)


def blocks(count: int):
    def change(data: bytes) -> bytes:
        place = data.find(b"llama.block_count") + len(b"llama.block_count") + 4  # behind the value's type
        return data[:place] + count.to_bytes(4, "little") + data[place + 4 :]

    return change


GGUFS = {
    "a tensor renamed": (
        swapped(b"blk.1.attn_q.weight", b"blk.1.attn_z.weight"),
        r"does not hold .*layers\.1\.self_attn\.q_proj",
    ),
    "a norm renamed": (swapped(b"output_norm.weight", b"outputxnorm.weight"), r"does not hold model\.norm\.weight"),
    "another family": (swapped(b"\0\0\0\0llama", b"\0\0\0\0qwen2"), r"does not hold .*k_proj\.bias"),
    "fewer blocks": (blocks(2), "holds block 2, but says that there are 2"),
    "more blocks": (blocks(4), r"does not hold model\.layers\.3"),
    "a million blocks": (blocks(10**6), "says 1,000,000 layers"),
    "scaled frequencies": (swapped(b"output_norm.weight", b"rope_freqs..weight"), "scaled rotary frequencies"),
    "cut short": (lambda data: data[: len(data) // 2], "cannot read this GGUF file"),
}


@pytest.mark.parametrize("name", sorted(GGUFS))
def test_a_gguf_file_that_is_not_the_whole_model_is_refused(tmp_path, monkeypatch, name):
    pytest.importorskip("gguf")
    from gguf_maker import save_gguf

    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    change, words = GGUFS[name]
    save_gguf(tmp_path / "it.GGUF")
    bytes_of("it.GGUF", change)(tmp_path)
    with pytest.raises(BaseModelError, match=words) as caught:
        Base.load(tmp_path / "it.GGUF", device="cpu")
    assert str(caught.value).isprintable() and not list((tmp_path / "cache").rglob("*gguf*"))


def test_what_a_killed_conversion_left_goes(tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    from gguf_maker import save_gguf

    from softprompt.leftovers import _machine

    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    save_gguf(tmp_path / "it.gguf")
    Base.load(tmp_path / "it.gguf", device="cpu")
    (made,) = (tmp_path / "cache" / "bases").iterdir()
    shutil.move(made, made.with_name(f".{made.name}.{_machine()}abcd.tmp"))
    other = made.with_name(".gguf-of-another.0123abcd.tmp")
    other.mkdir()
    Base.load(tmp_path / "it.gguf", device="cpu")
    assert {path.name for path in made.parent.iterdir()} == {made.name, other.name}
