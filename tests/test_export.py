"""What an export writes is read by other packages alone, and gives our logits there."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import peft
import pytest
import torch
from helpers import tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer
from safetensors import safe_open
from safetensors.torch import load_file
from test_cli import cli
from transformers import DynamicCache
from zoo import quiet
from zoo_models import build

import softprompt as sp
from softprompt import registry
from softprompt.base import Base
from softprompt.errors import ArtifactError, ConfigError, DataError
from softprompt.exporting import request_for
from softprompt.exporting.readme import verbatim

pytestmark = pytest.mark.filterwarnings("ignore")
P = 3
METHODS = {
    "soft": {"name": "soft", "length": P},
    "p_tuning": {"name": "p_tuning", "length": P, "hidden": 8},
    "prefix": {"name": "prefix", "length": P},
    "infix": {"name": "infix", "length": P},
    "tokens": {"name": "infix", "length": P, "form": "embeddings"},
    "slots": "soft",
    "probe": "probe",
    "hard": "hard",
    "head": {"name": "prefix", "length": P, "head": True},
    "lora": {"name": "lora", "r": 4},
    "rslora": {"name": "lora", "r": 4, "rslora": True, "activate": "cue"},
    "alora": {"name": "lora", "r": 4, "activate": "cue"},
    "ia3": "peft:IA3",
    "full": "full",
}
PLAIN = {"instruction": "Good or bad? ", "input": "Text: {{ text }}", "question": "\nWhich?", "cue": "\nIt is:"}
SLOTS = {**PLAIN, "input": "{{ soft(3) }}Text: {{ text }}{{ soft(2) }}"}
RATES = {"lora": 0.05, "rslora": 0.05, "alora": 0.05, "full": 1e-3}


class Runs:
    """Runs of two steps, each made when it is first asked for, and the base in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for family in ("llama", "gpt2"):
            tiny_model(family).save_pretrained(folder / family)
            tiny_tokenizer().save_pretrained(folder / family)

    def __call__(self, name: str, family: str = "llama") -> Path:
        out = self.folder / f"{name}-{family}"
        if not out.exists():
            task = tiny_task(template=SLOTS if name == "slots" else PLAIN)
            train = {"max_steps": 2, "batch_size": 4, **({"lr": RATES[name]} if name in RATES else {})}
            few = tiny_rows(train=8, dev=2, test=0)
            sp.train(tiny_base(family), task, METHODS[name], out, rows=few, train=train, check=False)
        return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


ROW = {"text": "sun rain gift 7"}


def ours(artifact: Path, base: Base) -> tuple[list[int], torch.Tensor]:
    """Ids of a row's prompt, without what is learned, and the logits [V] behind it."""
    runtime = sp.Runtime(base)
    runtime.add("it", artifact)
    prompt = runtime.get("it")
    example = prompt.form.encode(dict(ROW))
    ((_, batch),) = prompt.engine.contexts([example], prompt.method.learned(), continued=False)
    return [*prompt.bound.prefix_ids, *example.text, *prompt.bound.behind], batch.base.logits(batch.last)[0]


def equal(a: torch.Tensor, b: torch.Tensor) -> None:
    """Logits [V], to 1e-5."""
    assert a.shape == b.shape
    assert float((a - b).abs().max()) <= 1e-5, float((a - b).abs().max())


def loaded(folder: Path, base: Path, **names) -> dict:
    """What the README's code leaves; it is all that a reader is told."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(code.splitlines()) <= 12
    code = code.replace("path/to/the/base", str(base)).replace("path/to/this/folder", str(folder))
    exec(compile(code, "README", "exec"), names)
    return names


@torch.no_grad()
def plain(model, ids: list[int], **more) -> torch.Tensor:
    """Next-token logits [V] of a model of another package."""
    return model.eval()(input_ids=torch.tensor([ids]), **more).logits[0, -1]


@pytest.mark.parametrize("name", ["soft", "p_tuning", "prefix", "lora", "alora", "ia3"])
def test_plain_peft_loads_the_folder_with_our_logits(runs, tmp_path, name):
    artifact, out = runs(name), tmp_path / "out"
    assert sp.export(artifact, "peft", out) == out
    assert sorted(file.name for file in out.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    ids, logits = ours(artifact, tiny_base())
    model = loaded(out, runs.folder / "llama")["model"]
    equal(plain(model, ids, attention_mask=torch.ones(1, len(ids), dtype=torch.long)), logits)
    bare = plain(tiny_model("llama"), ids)
    assert (bare - logits).abs().max() > 1e-3  # what was learned acts


@pytest.mark.parametrize(
    ("name", "family"), [("prefix", "llama"), ("soft", "llama"), ("p_tuning", "gpt2"), ("soft", "gpt2")]
)
def test_a_cache_of_the_exported_keys_and_values_gives_our_logits(runs, tmp_path, name, family):
    base, out = tiny_base(family), tmp_path / "out"
    sp.export(runs(name, family), "kv", out, base=base)
    ids, logits = ours(runs(name, family), base)
    got = loaded(out, runs.folder / family)
    with torch.no_grad():
        equal(got["model"](input_ids=torch.tensor([ids]), past_key_values=got["cache"]).logits[0, -1], logits)
    with safe_open(out / "keys_values.safetensors", "pt") as file:
        told, shapes = file.metadata(), {file.get_tensor(key).shape for key in file.offset_keys()}
    assert shapes == {(1, base.shape.kv_heads, P, base.shape.head_size)}
    assert (told["base_digest"], told["tokens"], told["first_position"]) == (base.digest, "3", "0")
    before, behind = json.loads(told["ids_before_text"]), json.loads(told["ids_behind_text"])
    assert ids[: len(before)] == before and ids[-len(behind) :] == behind
    assert base.tokenizer.decode(ids[len(before) : -len(behind)]).strip() == ROW["text"]


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3-wide"])
def test_an_infix_rotated_into_a_cache_behind_the_text_gives_our_logits(runs, tmp_path, family):
    """In gemma3 layers rotate by two rates; in gpt2 not at all."""
    base, out, model = tiny_base(family), tmp_path / "out", tiny_model(family).eval()
    sp.export(runs("infix", family), "kv", out, base=base)
    ids, logits = ours(runs("infix", family), base)
    with safe_open(out / "keys_values.safetensors", "pt") as file:
        told = file.metadata()
    last = json.loads(told["ids_behind_prompt"])
    before, behind = json.loads(told["ids_before_text"]), json.loads(told["ids_behind_text"])
    assert told["first_position"] == "none" and len(last) == 1 and ids[: len(before)] == before
    assert ids[-len(behind + last) :] == behind + last
    assert base.tokenizer.decode(ids[len(before) : -len(behind + last)]).strip() == ROW["text"]
    position, cache = len(ids) - 1, DynamicCache()
    model(input_ids=torch.tensor([ids[:-1]]), past_key_values=cache)
    loaded(out, tmp_path)["put"](cache, position)
    found = model(input_ids=torch.tensor([last]), past_key_values=cache, position_ids=torch.tensor([[position]]))
    equal(found.logits[0, -1], logits)
    assert (plain(model, ids) - logits).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["lora", "full"])
def test_a_merged_model_has_our_logits(runs, tmp_path, name):
    base, out = tiny_base(), tmp_path / "out"
    sp.export(runs(name), "merged", out, base=base)
    ids, logits = ours(runs(name), base)
    got = loaded(out, runs.folder / "llama")
    equal(plain(got["model"], ids), logits)
    assert (plain(tiny_model("llama"), ids) - logits).abs().max() > 1e-3
    assert got["tokenizer"]("a b")["input_ids"] == base.tokenizer("a b")["input_ids"]


def test_an_activated_lora_has_what_llama_cpps_script_reads(runs, tmp_path):
    """Field by field, as `convert_lora_to_gguf.py` reads them; and PEFT, which it was written for, gives our logits."""
    artifact, out, base = runs("alora"), tmp_path / "out", tiny_base()
    sp.export(artifact, "gguf-alora", out)
    config = json.loads((out / "adapter_config.json").read_text("utf-8"))
    ids, logits = ours(artifact, base)
    cue = base.tokenizer("\nIt is:", add_special_tokens=False)["input_ids"]
    assert config["alora_invocation_tokens"] == cue == ids[-len(cue) :]
    assert (config["lora_alpha"], config["r"]) == (16.0, 4) and "base_model_name_or_path" in config
    assert "invocation_string" not in config  # from which it would make the tokens anew
    weights = dict(tiny_model("llama").named_parameters())
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in load_file(out / "adapter_model.safetensors").items():
        side = "A" if ".lora_A.weight" in name else "B" if ".lora_B.weight" in name else None
        plainly = name.replace("base_model.model.", "").replace(f".lora_{side}.weight", ".weight")
        pairs.setdefault(plainly, {})[side] = value
    assert pairs and all(set(pair) == {"A", "B"} for pair in pairs.values())
    assert {name.split(".")[-2] for name in pairs} == set(config["target_modules"])
    for name, pair in pairs.items():
        assert pair["A"].shape == (4, weights[name].shape[1]) and pair["B"].shape == (weights[name].shape[0], 4)
    model = peft.PeftModel.from_pretrained(tiny_model("llama"), str(out))
    equal(plain(model, ids, attention_mask=torch.ones(1, len(ids), dtype=torch.long)), logits)
    assert f"`{cue}`" in (out / "README.md").read_text("utf-8")
    with pytest.raises(ConfigError, match="does not read the base's transposed weights"):
        sp.export(runs("alora", "gpt2"), "gguf-alora", tmp_path / "gpt2")


@torch.no_grad()
def prompted(model, body: dict) -> torch.Tensor:
    """Next-token logits [V] of a request's `prompt_embeds`, read as vLLM reads them."""
    data = base64.b64decode(body["prompt_embeds"], validate=True)
    embeds = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    assert embeds.dim() == 2 and embeds.dtype == torch.float32
    return model.eval()(inputs_embeds=embeds[None]).logits[0, -1]


@pytest.mark.parametrize(("name", "family"), [("soft", "llama"), ("soft", "gpt2"), ("p_tuning", "llama")])
def test_a_request_of_embeddings_gives_our_logits(runs, tmp_path, name, family):
    artifact, base, model, out = runs(name, family), tiny_base(family), tiny_model(family), tmp_path / "out"
    sp.export(artifact, "prompt-embeds", out, base=base, row=ROW)
    ids, logits = ours(artifact, base)
    body = json.loads(loaded(out, runs.folder / family)["request"].data)
    assert set(body) == {"model", "prompt_embeds", "max_tokens", "temperature"} and body["model"] == f"tiny-{family}"
    assert body["max_tokens"] == len(base.tokenizer(" good", add_special_tokens=False)["input_ids"])
    equal(prompted(model, body), logits)
    learned = load_file(out / "prompt.safetensors")["prompt"]
    with torch.no_grad():
        embeds = torch.cat([learned, model.get_input_embeddings()(torch.tensor(ids))])
        equal(model.eval()(inputs_embeds=embeds[None]).logits[0, -1], logits)


@pytest.mark.parametrize("name", ["slots", "tokens"])
def test_learned_embeddings_between_tokens_stand_there_in_a_request(runs, tmp_path, name):
    """A template's soft slots, and an infix of embeddings: no other package has a format for these."""
    base, out = tiny_base(), tmp_path / "out"
    sp.export(runs(name), "prompt-embeds", out, base=base)
    stored = {key: list(value.shape) for key, value in load_file(out / "prompt.safetensors").items()}
    assert stored == ({"soft0": [3, 64], "soft1": [2, 64]} if name == "slots" else {"prompt": [P, 64]})
    readme = out / "README.md"
    named = readme.read_text("utf-8").replace("path/to/the/artifact", str(runs(name))).replace("…", ROW["text"])
    readme.write_text(named, "utf-8")
    equal(prompted(tiny_model("llama"), loaded(out, runs.folder / "llama")["request"]), ours(runs(name), base)[1])


def test_a_row_that_does_not_fit_makes_no_request(runs, tmp_path):
    with pytest.raises(DataError, match="the row: missing field 'text'"):
        sp.export(runs("soft"), "prompt-embeds", tmp_path / "out", base=tiny_base(), row={"words": "a"})
    with pytest.raises(ArtifactError, match="no embeddings, so vLLM cannot be given them"):
        request_for(sp.load(runs("prefix")), tiny_base(), ROW)
    assert not (tmp_path / "out").exists()


def test_the_readme_names_base_and_digests(runs, tmp_path):
    sp.export(runs("soft"), "peft", tmp_path / "out", base=tiny_base())
    text, base = (tmp_path / "out" / "README.md").read_text("utf-8"), tiny_base()
    assert f"Base: `tiny-llama`, digest `{base.digest}`" in text and base.tokenizer_digest in text
    assert "starts at position 3" in text


REFUSED = {
    (
        "infix",
        "peft",
    ): "PEFT has no place for what method 'infix' has learned here, so it has no 'peft' format; use --to kv",
    (
        "lora",
        "kv",
    ): "are no keys and values in front of a text or behind it, so it has no 'kv' format; use --to peft or merged",
    (
        "slots",
        "peft",
    ): "PEFT has no place for what method 'soft' has learned here, so it has no 'peft' format; use --to prompt",
    (
        "slots",
        "kv",
    ): "are no keys and values in front of a text or behind it, so it has no 'kv' format; use --to prompt-embeds",
    ("prefix", "prompt-embeds"): "are no embeddings, so it has no 'prompt-embeds' format; use --to peft or kv",
    ("head", "kv"): "are no keys and values",
    ("head", "peft"): "PEFT has no place",
    ("soft", "merged"): "does not lie in weights, so it has no 'merged' format; use --to peft or kv or prompt-embeds",
    ("alora", "merged"): "acts from the cue on only, so it cannot be merged",
    ("lora", "gguf-alora"): "only an activated LoRA (method lora, activate: cue)",
    ("rslora", "gguf-alora"): "does not read method.rslora, which scales by the root of the rank",
    ("probe", "kv"): "serve the artifact itself (softprompt predict)",
    ("hard", "merged"): "serve the artifact itself (softprompt predict)",
}


@pytest.mark.parametrize(("name", "to"), REFUSED)
def test_what_a_format_cannot_hold_is_refused_before_a_base_is_loaded(runs, tmp_path, name, to):
    with pytest.raises(ConfigError) as refused:
        sp.export(runs(name), to, tmp_path / "out")
    assert REFUSED[name, to] in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["kv", "prompt-embeds"])
def test_of_an_encoder_only_weights_are_exported(runs, tmp_path, to):
    with pytest.raises(ConfigError, match=r"its base is of kind 'masked'.*; serve the artifact itself"):
        sp.export(runs("soft", "bert"), to, tmp_path / "out")


def test_a_family_whose_cache_holds_something_else_is_refused(tmp_path):
    """DeepSeek's holds latents."""
    with quiet():
        base = Base(build("causal", "deepseek_v3"), tiny_tokenizer(), "deepseek_v3")
        few = tiny_rows(train=4, dev=2, test=0)
        sp.train(base, tiny_task(), METHODS["soft"], tmp_path, rows=few, train={"max_steps": 1}, check=False)
    with pytest.raises(ConfigError, match="no plain cache of keys and values per layer"):
        sp.export(tmp_path, "kv", tmp_path / "out", base=base)
    assert not (tmp_path / "out").exists()


def test_the_command_refuses_in_one_line(runs, tmp_path):
    artifact, other = runs("soft"), Base(tiny_model("llama", seed=4), tiny_tokenizer(), "other")
    (tmp_path / "there").mkdir()
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    cases = [
        (["--to", "onnx", "--out", "new"], f"(known: {', '.join(sorted(registry.names('softprompt.formats')))})"),
        (["--to", "peft", "--out", "there"], "there: exists already; choose another folder"),
        (["--to", "peft", "--out", "new", "--base", "other"], "belongs to base 'tiny-llama'"),
        (["--to", "peft", "--out", "new", "--text", "text=a"], "format 'peft' holds no row"),
        (["--to", "peft", "--out", "new", "--text", "text"], "expected FIELD=VALUE"),
    ]
    for arguments, problem in cases:
        done = cli("export", artifact, *arguments, cwd=tmp_path)
        assert done.returncode == 2 and problem in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_the_command_writes_and_tells(runs, tmp_path):
    base = runs.folder / "llama"
    more = ["--to", "prompt-embeds", "--text", f"text={ROW['text']}", "--out", "new", "--base", base, "--json"]
    done = cli("export", runs("soft"), *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["format"] == "prompt-embeds" and told["files"] == ["README.md", "prompt.safetensors", "request.json"]
    body = json.loads((tmp_path / "new" / "request.json").read_text("utf-8"))
    assert body == request_for(sp.load(runs("soft")), tiny_base(), ROW)


def test_python_asks_for_the_artifacts_own_base(runs, tmp_path):
    with pytest.raises(ArtifactError, match="belongs to base"):
        sp.export(runs("soft"), "peft", tmp_path / "out", base=tiny_base("gpt2"))


def test_a_text_in_a_readme_is_no_markup():
    assert verbatim('"a <b> ``c`` d"') == '```"a <b> ``c`` d"```'
    assert verbatim('"<img src=x>"') == '`"<img src=x>"`'
