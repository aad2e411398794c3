"""The mean of artifacts: its tensors against numpy, its answers against other ways to them, its refusals, its command."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import close, tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer
from scipy.special import log_softmax
from test_cli import cli, refused
from test_multilabel import TASK, several_rows

import softprompt as sp
from softprompt import artifact as artifacts
from softprompt.artifact import Manifest
from softprompt.base import Base
from softprompt.errors import ArtifactError, ConfigError
from softprompt.tasks import Task
from softprompt.training.averaging import check_alike

WEIGHTS = (0.25, 0.75)
TEXTS = ["joy sun gift 1", "rain 2", "hope 3", "pain mud 4"]
SETTINGS = {"max_steps": 2, "lr": 0.05, "batch_size": 8}
LORA = {"name": "lora", "r": 2, "alpha": 6, "target_modules": ["q_proj", "down_proj"]}
METHODS = {
    "soft": {"name": "soft", "length": 3},
    "prefix": {"name": "prefix", "length": 3},
    "infix": {"name": "infix", "length": 3},
    "p_tuning": {"name": "p_tuning", "length": 3, "hidden": 8, "encoder": "mlp"},
    "upper": {"name": "full", "layers": "2-"},
    "probe": {"name": "probe"},
    "lora": LORA,
    "cue": {**LORA, "activate": "cue", "rslora": True},
    "joint": {"name": "joint", "parts": [{"name": "soft", "length": 2}, LORA]},
}


@pytest.fixture(scope="module")
def base():
    return tiny_base()


@pytest.fixture(scope="module")
def runs(base, tmp_path_factory):
    """Where two runs of a method are, from two seeds; each is trained once."""
    folder = tmp_path_factory.mktemp("runs")

    def of(name, task=None, seeds=(0, 1)):
        places = [folder / f"{name}-{seed}" for seed in seeds]
        for seed, place in zip(seeds, places, strict=True):
            if not place.exists():
                rows = tiny_rows(16, 6, 6, seed=seed)
                settings = {} if name == "probe" else SETTINGS
                sp.train(base, task or tiny_task(), METHODS[name], place, train=settings, rows=rows, seed=seed)
        return places

    return of


def mean(places, to, base):
    return sp.save_average(to, list(zip(places, WEIGHTS, strict=True)), base)


def by_hand(places):
    """Each tensor's mean, by numpy."""
    first, second = (sp.load(place).tensors for place in places)
    return {k: (WEIGHTS[0] * first[k].numpy().astype(float) + WEIGHTS[1] * second[k].numpy()) for k in first}


def asked(base, folder):
    """Probabilities of good and bad, [B, 2]."""
    runtime = sp.Runtime(base)
    runtime.add("it", folder)
    found = runtime.predict(TEXTS, "it")
    return np.array([[one.probabilities[label] for label in ("good", "bad")] for one in found])


@pytest.mark.parametrize("name", ["soft", "prefix", "infix", "p_tuning", "upper"])
def test_tensors_are_the_mean_and_a_runtime_answers_with_them(base, runs, tmp_path, name):
    places = runs(name)
    held, wanted = mean(places, tmp_path / "mean", base), by_hand(places)
    assert set(held.tensors) == set(wanted)
    for key, value in held.tensors.items():
        assert value.numpy() == pytest.approx(wanted[key], abs=1e-6)
    manifest = sp.load(places[0]).manifest
    tensors = {key: torch.from_numpy(value).float() for key, value in wanted.items()}
    artifacts.save(tmp_path / "by-hand", manifest, tensors, "card")
    answers = asked(base, tmp_path / "mean")
    close(torch.from_numpy(answers), torch.from_numpy(asked(base, tmp_path / "by-hand")), 1e-5)
    assert all(np.abs(answers - asked(base, place)).max() > 1e-6 for place in places)


def test_of_probes_it_is_the_mean_of_their_logits(base, runs, tmp_path):
    places = runs("probe")
    mean(places, tmp_path / "mean", base)
    logs = sum(weight * np.log(asked(base, place)) for place, weight in zip(places, WEIGHTS, strict=True))
    assert asked(base, tmp_path / "mean") == pytest.approx(np.exp(log_softmax(logs, axis=1)), abs=1e-5)


def updates(folder, scale):
    """The update of each module, scale · B A, in double precision."""
    held = sp.load(folder).tensors
    return {
        key.removesuffix(".lora_A.weight"): scale * held[key.replace("lora_A", "lora_B")].double() @ held[key].double()
        for key in held
        if key.endswith("lora_A.weight")
    }


@pytest.mark.parametrize(
    ("name", "before", "after"), [("lora", 6 / 2, 12 / 4), ("cue", 6 / 2**0.5, 6 * 2**0.5 / 4**0.5)]
)
def test_of_loras_it_is_the_mean_of_their_updates(base, runs, tmp_path, name, before, after):
    places = runs(name)
    held = mean(places, tmp_path / "mean", base)
    assert held.manifest.method["r"] == 4
    first, second = (updates(place, before) for place in places)
    found = updates(tmp_path / "mean", after)
    assert set(found) == set(first) and len(found) == 6
    for key, value in found.items():
        close(value, WEIGHTS[0] * first[key] + WEIGHTS[1] * second[key], 1e-6)
        assert value.abs().max() > 0
    config = json.loads((tmp_path / "mean" / "adapter_config.json").read_text())
    assert config["r"] == 4 and held.manifest.loads_in == "peft"
    cues = [json.loads((at / "adapter_config.json").read_text()) for at in (tmp_path / "mean", places[0] / "artifact")]
    assert cues[0].get("alora_invocation_tokens") == cues[1].get("alora_invocation_tokens")


def test_an_averaged_lora_answers_like_a_model_with_its_updates(base, runs, tmp_path):
    """A model whose weights were changed by hand, asked without any method."""
    places = runs("lora")
    mean(places, tmp_path / "mean", base)
    first, second = (updates(place, 3.0) for place in places)
    model = tiny_model("llama")
    with torch.no_grad():
        for name, module in model.named_modules():
            if (key := f"base_model.model.{name}") in first:
                module.weight += (WEIGHTS[0] * first[key] + WEIGHTS[1] * second[key]).float()
    runtime = sp.Runtime(Base(model, tiny_tokenizer(), "changed"))
    task = sp.load(places[0]).manifest.task
    runtime.add("bare", sp.Task.load({key: value for key, value in task.items() if key != "data"}))
    bare = runtime.predict(TEXTS, "bare")
    wanted = np.array([[one.probabilities[label] for label in ("good", "bad")] for one in bare])
    assert asked(base, tmp_path / "mean") == pytest.approx(wanted, abs=1e-5)


def test_parts_of_a_joint_method_are_averaged_each_in_its_way(base, runs, tmp_path):
    places = runs("joint")
    held = mean(places, tmp_path / "mean", base)
    assert held.tensors["0.prompt_embeddings"].numpy() == pytest.approx(
        by_hand(places)["0.prompt_embeddings"], abs=1e-6
    )
    assert held.manifest.method["parts"][1]["r"] == 4
    assert np.isfinite(asked(base, tmp_path / "mean")).all()


def test_a_head_is_averaged_with_what_it_reads(base, tmp_path):
    for seed in (0, 1):
        method = {"name": "soft", "length": 2, "head": True}
        sp.train(base, tiny_task(), method, tmp_path / str(seed), train=SETTINGS, rows=tiny_rows(8, 4, 4), seed=seed)
    places = [tmp_path / "0", tmp_path / "1"]
    held, wanted = mean(places, tmp_path / "mean", base), by_hand(places)
    assert {"head.weight", "head.bias", "prompt_embeddings"} == set(held.tensors)
    assert all(value.numpy() == pytest.approx(wanted[key], abs=1e-6) for key, value in held.tensors.items())


def test_thresholds_that_each_training_chose_are_averaged(base, tmp_path):
    places = [tmp_path / "0", tmp_path / "1"]
    for seed, place in enumerate(places):
        sp.train(base, Task.load(TASK), METHODS["soft"], place, train=SETTINGS, rows=several_rows(), seed=seed)
    chosen = [sp.load(place).manifest.task["thresholds"] for place in places]
    assert chosen[0] != chosen[1]
    held = mean(places, tmp_path / "mean", base)
    wanted = {label: WEIGHTS[0] * value + WEIGHTS[1] * chosen[1][label] for label, value in chosen[0].items()}
    assert held.manifest.task["thresholds"] == pytest.approx(wanted)


def test_manifest_and_card_name_what_was_averaged(base, runs, tmp_path):
    places = runs("soft")
    held = mean(places, tmp_path / "mean", base)
    members = [sp.load(place) for place in places]
    assert held.manifest.training == {
        "averaged": [
            {"digest": one.digest, "weight": weight, "seed": seed}
            for seed, (one, weight) in enumerate(zip(members, WEIGHTS, strict=True))
        ]
    }
    card = (tmp_path / "mean" / "README.md").read_text()
    assert all(one.digest in card for one in members) and "Not measured" in card and "## Averaged" in card
    assert "## Data" not in card, "the members learned from other rows"
    assert held.manifest.loads_in == "peft" and (tmp_path / "mean" / "adapter_config.json").exists()
    again = mean(places, tmp_path / "again", base)
    assert again.digest == held.digest
    nested = sp.save_average(tmp_path / "nested", [(tmp_path / "mean", 0.5), (places[0], 0.5)], base)
    assert nested.manifest.training["averaged"][0] == {"digest": held.digest, "weight": 0.5}
    assert "## Averaged" not in (places[0] / "artifact" / "README.md").read_text()


@pytest.mark.parametrize("name", ["one", [{"digest": "x | y\n# z"}, 3], {"a": 1}])
def test_a_card_bears_what_a_stranger_calls_averaged(base, runs, name):
    from softprompt.artifact.card import model_card

    manifest = sp.load(runs("soft")[0]).manifest.model_copy(update={"training": {"averaged": name}})
    assert "\n# z" not in model_card(manifest)


def changed(manifest, **changes):
    return Manifest.model_validate({**manifest.as_dict(), **changes})


def test_only_what_is_alike_has_a_mean(runs):
    own = sp.load(runs("soft")[0]).manifest
    other = sp.load(runs("infix")[0]).manifest
    base, task, method = own.as_dict()["base"], own.task, own.method
    turned = {**task, "verbalizer": dict(reversed(task["verbalizer"].items()))}
    cases = {
        'another method than a ("infix", not "soft")': other,
        "another base than a (": changed(own, base={**base, "digest": "0" * 64}),
        "another tokenizer than a (": changed(own, base={**base, "tokenizer_digest": "0" * 64}),
        "another method.length than a (4, not 3)": changed(own, method={**method, "length": 4}),
        "another shape than a (": changed(own, tensors={"prompt_embeddings": {"shape": [3, 65]}}),
        "another task.template than a (": changed(own, task={**task, "template": {**task["template"], "cue": "\nSo:"}}),
        "another task.verbalizer than a (": changed(own, task=turned),
        "names no task": changed(own, task=None),
    }
    for words, manifest in cases.items():
        with pytest.raises(ArtifactError) as error:
            check_alike({"a": own, "b": manifest})
        assert words in str(error.value) and "b" in str(error.value) and "\n" not in str(error.value), words
    moved = {**task, "name": "other", "data": {"source": "other.csv"}}
    check_alike({"a": own, "b": changed(own, task=moved, method={**method, "init": "random"})})
    for count in (1, 65):
        with pytest.raises(ConfigError, match="2 to 64 members"):
            check_alike({str(place): own for place in range(count)})


@pytest.mark.parametrize(
    "method",
    [
        {"name": "peft:IA3"},
        {**LORA, "dora": True},
        {**LORA, "options": {"bias": "all"}},
        {**LORA, "options": {"rank_pattern": {"q_proj": 1}}},
    ],
    ids=["IA3", "dora", "bias", "ranks"],
)
def test_other_factors_have_no_mean(base, tmp_path, method):
    sp.train(base, tiny_task(), method, tmp_path / "one", train=SETTINGS, rows=tiny_rows(8, 4, 4))
    with pytest.raises(ConfigError, match="softprompt ensemble") as error:
        mean([tmp_path / "one"] * 2, tmp_path / "mean", base)
    assert "\n" not in str(error.value) and not (tmp_path / "mean").exists()


def test_what_learned_nothing_and_odd_weights_are_refused(base, runs, tmp_path):
    sp.train(base, tiny_task(), "hard", tmp_path / "hard", rows=tiny_rows(8, 4, 4))
    with pytest.raises(ArtifactError, match="'hard' has learned no tensors"):
        mean([tmp_path / "hard"] * 2, tmp_path / "mean", base)
    for weights in ((0.5, 0.6), (-0.5, 1.5), (float("nan"), 1.0)):
        with pytest.raises(ConfigError, match="sum 1"):
            sp.save_average(tmp_path / "mean", list(zip(runs("soft"), weights, strict=True)), base)
    with pytest.raises(ArtifactError, match="base"):
        mean(runs("soft"), tmp_path / "mean", tiny_base("gpt2"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"notes\.txt"):
        mean(runs("soft"), tmp_path / "mine", base)


def test_the_command_measures_members_and_mean(base, runs, tmp_path):
    model = tmp_path / "base"
    tiny_model("llama").save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    for name, place in zip("ab", runs("soft"), strict=True):
        shutil.copytree(place, tmp_path / name)
    rows = tiny_rows(test=20)["test"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row.values) + "\n" for row in rows))
    more = ("--base", "base", "--data", "rows.jsonl")
    done = cli("average", "a", "b", "--out", "mean", "--weights", "1,3", *more, "--json", "told.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    held = sp.load(tmp_path / "mean")
    for key, value in by_hand(runs("soft")).items():
        assert held.tensors[key].numpy() == pytest.approx(value, abs=1e-6)
    assert told["digest"] == held.digest and told["weights"] == list(WEIGHTS)
    best = max(one["value"] for one in told["members"])
    assert told["gain"]["value"] == pytest.approx(told["metrics"]["dev"]["value"] - best) and told["gain"]["rows"] == 20
    assert held.manifest.metrics["dev"].rows == 20
    assert done.stdout.count("weight 0.") == 2 and "average: dev accuracy" in done.stdout
    assert "gain over the best member on these rows" in done.stdout
    done = cli("eval", "mean", *more, "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["value"] == pytest.approx(told["metrics"]["dev"]["value"]), done.stderr
    refused(cli("average", "a", "--out", "one", *more, cwd=tmp_path), "at least two members")
    refused(cli("average", "a", "a/run.yaml", "--out", "one", *more, cwd=tmp_path), "run.yaml")
    shutil.copytree(runs("infix")[0], tmp_path / "c")
    refused(cli("average", "a", "c", "--out", "one", *more, cwd=tmp_path), "c: has another", "softprompt ensemble")
    assert not (tmp_path / "one").exists()
