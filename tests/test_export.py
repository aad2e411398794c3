"""What an export writes is read by other packages alone, and gives our logits there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from helpers import tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer
from test_cli import cli

import softprompt as sp
from softprompt import registry
from softprompt.base import Base
from softprompt.errors import ArtifactError, ConfigError

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
SLOTS = {"instruction": "Good or bad? ", "input": "{{ soft(3) }}Text: {{ text }}{{ soft(2) }}", "cue": "\nIt is:"}
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
            task = tiny_task(template=SLOTS) if name == "slots" else tiny_task()
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
    return [*prompt.bound.prefix_ids, *example.text, *prompt.bound.cue], base.logits(batch.last)[0]


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


def test_the_readme_names_base_and_digests(runs, tmp_path):
    sp.export(runs("soft"), "peft", tmp_path / "out", base=tiny_base())
    text, base = (tmp_path / "out" / "README.md").read_text("utf-8"), tiny_base()
    assert f"Base: `tiny-llama`, digest `{base.digest}`" in text and base.tokenizer_digest in text
    assert "starts at position 3" in text


REFUSED = {
    ("infix", "peft"): "PEFT has no place for what method 'infix' has learned here, so it has no 'peft' format; ",
}


@pytest.mark.parametrize(("name", "to"), REFUSED)
def test_what_a_format_cannot_hold_is_refused_before_a_base_is_loaded(runs, tmp_path, name, to):
    with pytest.raises(ConfigError) as refused:
        sp.export(runs(name), to, tmp_path / "out")
    assert REFUSED[name, to] in str(refused.value)
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
    done = cli("export", runs("soft"), "--to", "peft", "--out", "new", "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert told["format"] == "peft" and told["files"] == sorted(file.name for file in (tmp_path / "new").iterdir())


def test_python_asks_for_the_artifacts_own_base(runs, tmp_path):
    with pytest.raises(ArtifactError, match="belongs to base"):
        sp.export(runs("soft"), "peft", tmp_path / "out", base=tiny_base("gpt2"))
