"""The doctor: every check is seen to fail on what it is there for, and to pass on what is healthy."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from contract.cases import METHODS, name_of
from covering import covering
from helpers import tiny_rows, tiny_task
from models import FAMILIES, tiny_base, tiny_model, tiny_tokenizer

from softprompt import artifact as artifacts
from softprompt import doctor
from softprompt.base import Base
from softprompt.data import Row
from softprompt.doctor import Case, Finding, before_training, checks, examine, sample
from softprompt.doctor.cases import of_artifact
from softprompt.engine import Engine, Learned
from softprompt.engine import engine as engine_module
from softprompt.errors import DataError, TrainingError
from softprompt.methods import make_method
from softprompt.methods.soft import Soft
from softprompt.tasks import Task
from softprompt.training import prepare, train

SETTINGS = {"epochs": 6, "batch_size": 8, "lr": 0.05, "patience": 50}


def case_of(method, family="llama", task=None, rows=None, count=6) -> Case:
    """A run before training."""
    base, method = tiny_base(family), method if not isinstance(method, (str, dict)) else make_method(method)
    ready = prepare(base, task or tiny_task(), method, rows=rows or tiny_rows(), splits=("train", "dev"), seed=0)
    return Case(ready, sample(ready.splits["train"], count))


def found(case, *names) -> list[Finding]:
    return examine(case, checks(names or None))


def worst(case, *names) -> Finding:
    order = ("skipped", "ok", "warning", "error")
    return max(found(case, *names), key=lambda finding: order.index(finding.level))


def healthy(findings) -> None:
    assert not [str(finding) for finding in findings if finding.level in ("warning", "error")]
    assert all("\n" not in str(finding) for finding in findings)


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_healthy_methods_pass(method):
    findings = found(case_of(method))
    healthy(findings)
    levels = {finding.check: finding.level for finding in findings}
    learns = name_of(method) not in ("hard", "probe")
    assert levels["effect"] == ("ok" if learns else "skipped")
    assert levels["positions"] == levels["padding"] == levels["rows"] == levels["joints"] == "ok"
    assert list(levels) == list(checks())


@pytest.mark.parametrize(("family", "head"), covering(["bert", "t5", "bart"], [False, True]))
def test_healthy_runs_of_other_kinds_of_bases_pass(family, head, tmp_path):
    """Models that read both ways, and those with an encoder: before training and as artifacts."""
    for name in ("soft", "prefix", "infix"):
        method = {"name": name, "length": 3, "head": head}
        findings = found(case_of(method, family))
        healthy(findings)
        levels = {finding.check: finding.level for finding in findings}
        assert all(levels[check] == "ok" for check in ("effect", "gradient", "positions", "padding", "norms"))
        train(tiny_base(family), tiny_task(), method, tmp_path / name, train=SETTINGS, rows=tiny_rows())
        held = artifacts.load(tmp_path / name / "artifact")
        assert not [str(f) for f in examine(of_artifact(held, tiny_base(family), 6)) if f.level == "error"]


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_written_answers_are_healthy(family):
    spec = {"name": "w", "type": "generation", "template": {"input": "{{ text }}", "cue": "\n:"}}
    rows = {
        name: [Row({**row.values, "answer": row.values["label"]}, row.where) for row in part]
        for name, part in tiny_rows().items()
    }
    findings = found(case_of("soft", family, Task.load(spec), rows))
    healthy(findings)
    assert {finding.level for finding in findings if finding.check == "positions"} == {"ok"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["soft", "prefix", "infix", {"name": "lora", "activate": "cue"}], ids=name_of)
def test_healthy_families_pass(method, family):
    words = {"good": ["very good", "fine"], "bad": "bad"}
    healthy(found(case_of(method, family, tiny_task(verbalizer=words))))


@pytest.mark.parametrize("method", ["soft", "infix", "lora", "full", "hard", "probe"])
def test_a_trained_artifact_is_sound(method, tmp_path):
    result = train(tiny_base(), tiny_task(), method, tmp_path, train=SETTINGS, rows=tiny_rows(48, 24))
    held = artifacts.load(tmp_path)
    ready = result.prepared
    trained = Case(ready, sample(ready.splits["train"], 4), held, full=True)
    findings = found(trained)
    healthy([finding for finding in findings if finding.check not in ("majority", "norms")])
    levels = {finding.check: finding.level for finding in findings}
    assert levels["artifact"] == levels["metric"] == "ok" and levels["gradient"] == "skipped"
    alone = of_artifact(held, tiny_base(), 4)  # its data is not at hand: the model is run on made-up rows
    findings = found(alone)
    healthy(findings)
    assert alone.made_up and any("made-up rows" in finding.what for finding in findings)


def test_nothing_of_a_run_changes(tmp_path):
    for method in ("infix", "lora"):
        runs = [
            train(tiny_base(), tiny_task(), method, train=SETTINGS, rows=tiny_rows(), check=check)
            for check in (True, False)
        ]
        one, other = (run.prepared.method.export() for run in runs)
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert [finding.check for finding in runs[0].findings][-1] == "majority" and not runs[1].findings


# Sabotage


class Astray(Soft):
    """Its segment has a name that no slot has."""

    def learned(self):
        return Learned({"promt": self.value})


class Detached(Soft):
    """Its parameter is not in the graph."""

    def learned(self):
        return Learned({"prompt": self.value.detach()})


class Idle(Soft):
    """One of its parameters does nothing."""

    def attach(self, base, bound, seed):
        super().attach(base, bound, seed)
        self.idle = torch.nn.Parameter(torch.ones(3))

    def parameters(self):
        return [*super().parameters(), self.idle]


def make(kind, **settings):
    return kind(kind.Spec(name="soft", length=3, **settings))


def test_a_segment_that_no_slot_names():
    finding = worst(case_of(make(Astray)), "effect")
    assert finding.level == "error" and "'promt'" in finding.what


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_prompt_that_no_token_sees(family, monkeypatch):
    """gpt2: its positions still shift the text, which is no effect of the prompt."""
    real = engine_module.learned_past

    def unseen(kv, takes_positions):
        return replace(real(kv[..., :0, :], takes_positions), width=kv.shape[3])

    monkeypatch.setattr(engine_module, "learned_past", unseen)
    case = case_of({"name": "prefix", "length": 3}, family)
    finding = worst(case, "effect")
    assert finding.level == "error" and "no token sees segment 'prompt'" in finding.what
    assert worst(case, "gradient").level == "error"
    with pytest.raises(TrainingError, match=r"no token sees.*--no-check"):
        train(case.base, tiny_task(), {"name": "prefix", "length": 3}, rows=tiny_rows())
    went_on = train(case.base, tiny_task(), "prefix", train={"max_steps": 1}, rows=tiny_rows(), check=False)
    assert went_on.best_step == 1


def test_parameters_without_gradient():
    finding = worst(case_of(make(Detached)), "gradient")
    assert finding.level == "error" and "1 of 1" in finding.what
    finding = worst(case_of(make(Idle)), "gradient")
    assert finding.level == "warning" and "parameter 1 [3]" in finding.what
    assert worst(case_of("lora"), "gradient").level == "ok"  # A has none while B is zero, but will


def test_a_gradient_that_is_no_number():
    case = case_of("soft")
    with torch.no_grad():
        case.method.value[0, 0] = float("nan")
    assert worst(case, "gradient").level == worst(case, "effect").level == "error"


@pytest.mark.parametrize("name", ["lora", "full", "peft:IA3"])
def test_a_trained_update_of_zero(name, tmp_path):
    train(tiny_base(), tiny_task(), name, tmp_path, train={"max_steps": 1, "lr": 1e-30}, rows=tiny_rows())
    case = of_artifact(artifacts.load(tmp_path), tiny_base(), 4)
    finding = worst(case, "effect")
    assert finding.level == "error" and "change no logit" in finding.what


@pytest.mark.parametrize("name", ["soft", "prefix", "infix"])
def test_an_exploded_norm(name):
    case = case_of(name)
    with torch.no_grad():
        case.method.value.mul_(100)
    finding = worst(case, "norms")
    assert finding.level == "warning" and "times the 99th percentile" in finding.what


def test_padding_that_matters(monkeypatch):
    from softprompt.doctor import positions

    real = positions._plain

    def forgetful(base, attention_mask=None, position_ids=None, **inputs):
        return real(base, **inputs)

    monkeypatch.setattr(positions, "_plain", forgetful)
    finding = worst(case_of("soft"), "padding")
    assert finding.level == "error" and "left-padded" in finding.what


def test_rows_that_see_one_another(monkeypatch):
    real = Engine.answers

    def leaking(self, examples, learned):
        logits, targets = real(self, examples, learned)
        return logits + len(examples), targets

    monkeypatch.setattr(Engine, "answers", leaking)
    finding = worst(case_of("soft"), "padding")
    assert finding.level == "error" and "alone against the same rows together" in finding.what


@pytest.mark.parametrize("name", ["soft", "prefix", "infix", "lora", "hard"])
def test_an_answer_scored_at_the_wrong_place(name, monkeypatch):
    real = Engine.answers

    def late(self, examples, learned):
        logits, targets = real(self, examples, learned)
        return logits.roll(1, 0), targets

    monkeypatch.setattr(Engine, "answers", late)
    finding = next(f for f in found(case_of(name), "positions") if f.level == "error")
    assert "Σ log p" in finding.what and "logits differ" in finding.what


def test_scored_tokens_that_do_not_say_the_answer(monkeypatch):
    real = Engine.answers
    monkeypatch.setattr(
        Engine, "answers", lambda self, rows, learned: (real(self, rows, learned)[0], real(self, rows, learned)[1] + 1)
    )
    assert any("the scored tokens say" in f.what for f in found(case_of("soft"), "positions") if f.level == "error")


def test_bad_rows():
    rows = tiny_rows()
    rows["train"][3].values["text"] = ""
    with pytest.raises(DataError, match="train:4: field 'text' is empty"):
        case_of("hard", rows=rows)
    finding = worst(case_of("hard", task=tiny_task(max_text_tokens=4)), "rows")
    assert finding.level == "warning" and "are cut" in finding.what
    rows = tiny_rows()
    for row in rows["train"][2:]:
        row.values["label"] = "good"
    finding = worst(case_of("hard", rows=rows), "rows")
    assert finding.level == "warning" and "train: good 96%, bad 4%" in finding.what
    rows["train"][1].values["label"] = "good"
    assert "rows of one label" in worst(case_of("hard", rows=rows), "rows").advice


def test_one_of_two_fields_that_is_empty():
    rows = tiny_rows()
    for part in rows.values():
        for row in part:
            row.values["title"] = "  " if row.where == "train:3" else "a title"
    told = {}
    for shown in ("{{ title }}", "{% if title %}{{ title }}{% endif %}"):
        task = tiny_task(template={"input": shown + " Text: {{ text }}", "cue": "\nIt is:"})
        told[shown] = [finding.what for finding in found(case_of("hard", task=task, rows=rows), "rows")]
    assert [what for what in told["{{ title }}"] if "field 'title' is empty in 1 of 36 rows, the first train:3" in what]
    assert not [what for what in told["{% if title %}{{ title }}{% endif %}"] if "is empty" in what]


@pytest.mark.parametrize(
    "metric, answer, told", [("bleu", "北京天安门广场", True), ("rouge_l", "好", True), ("rouge_l_zh", "好", False)]
)
def test_a_metric_that_does_not_read_the_answers_script(metric, answer, told):
    spec = {"name": "t", "type": "generation", "template": {"input": "{{ text }}"}, "metric": metric}
    rows = {"train": [Row({"text": f"a{k}", "answer": answer}, f"train:{k}") for k in range(4)]}
    case = case_of("soft", task=Task.load({**spec, "generation": {"max_new_tokens": 32}}), rows=rows, count=2)
    said = [str(finding) for finding in found(case, "rows") if "the right answers themselves score" in str(finding)]
    assert len(said) == told


@pytest.mark.parametrize("opened, told", [("<think>\n", 1), ("<think>\n\n</think>\n\n", 0), ("", 0)])
def test_a_chat_template_that_lets_the_base_think_before_it_answers(opened, told):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template += "{% if add_generation_prompt %}" + opened + "{% endif %}"
    base = Base(tiny_model("llama"), tokenizer, "chat")
    task = tiny_task(template={"chat": True, "input": "{{ text }}"})
    ready = prepare(base, task, make_method("hard"), rows=tiny_rows(), seed=0)
    findings = found(Case(ready, ready.splits["train"][:2]), "rows")
    assert sum("opens <think> in front of the answer" in finding.what for finding in findings) == told


def test_a_label_that_no_training_row_has():
    task = tiny_task(verbalizer={label: label for label in ("good", "mixed", "bad")})
    said = [str(finding) for finding in found(case_of("hard", task=task), "rows") if finding.level == "warning"]
    assert said and all("no row is labelled 'mixed'; " in line for line in said)
    many = tiny_task(verbalizer={label: label for label in ("good", "bad", *"abcdefgh")})
    (warning,) = (finding for finding in found(case_of("hard", task=many), "rows") if finding.level == "warning")
    assert warning.what == "train: no row is labelled 'a', 'b', 'c', 'd', 'e', 'f' and 2 more"


def test_two_labels_with_the_same_tokens():
    template = {"input": "Text: {{ text }}", "cue": "\nIt is:", "answer": " {{ answer | lower }}"}
    task = tiny_task(template=template, verbalizer={"good": "Good", "bad": "good"})
    finding = worst(case_of("soft", task=task), "labels")
    assert finding.level == "error" and "'good' and 'bad'" in finding.what
    with pytest.raises(TrainingError, match="same tokens"):
        train(tiny_base(), task, "soft", rows=tiny_rows())
    two = tiny_task(template=template, verbalizer={"good": ["Good", "GOOD"], "bad": "bad"})  # of one label: no harm
    assert worst(case_of("soft", task=two), "labels").level == "ok"


def test_an_answer_that_wants_a_space(monkeypatch):
    template = {"input": "Text: {{ text }}", "cue": "\nIt is:", "answer": "{{ answer }}"}
    case = case_of("soft", task=tiny_task(template=template, verbalizer={"good": "xx", "bad": "yy"}))
    healthy(found(case, "labels"))  # of bytes a space is one more
    monkeypatch.setattr("softprompt.doctor.data._size", lambda case, text: 1 if text[0] == " " else 2)
    finding = worst(case, "labels")
    assert finding.level == "warning" and '" {{ answer }}"' in finding.advice
    healthy(found(case_of("soft"), "labels"))


@pytest.mark.parametrize(
    ("cue", "answer", "joint"),
    [("\nIt is: ", "{{ answer }}", "cue and answer"), ("p", "{{ answer }}", "cue and answer")],
)
def test_tokens_that_merge_over_a_joint(cue, answer, joint):
    template = {"input": "Text: {{ text }}", "cue": cue, "answer": answer}
    finding = worst(case_of("soft", task=tiny_task(template=template, verbalizer={"good": "a", "bad": "o"})), "joints")
    assert finding.level == "warning" and joint in finding.what and "in pieces" in finding.what


def test_a_text_that_merges_with_the_template():
    template = {"input": "{{ text }}", "cue": "o\nIt is:"}  # p and o are one token
    rows = tiny_rows()
    for row in rows["train"]:
        row.values["text"] += "p"
    finding = worst(case_of("soft", task=tiny_task(template=template), rows=rows), "joints")
    assert finding.level == "warning" and "template and text" in finding.what


def test_special_tokens_that_rows_write_are_no_fault_of_the_template():
    rows = tiny_rows()
    for row in rows["train"][:-8]:
        row.values["text"] += " </s>"
    assert worst(case_of("soft", rows=rows, count=24), "joints").what.startswith("8 rows have the same tokens")


def test_no_better_than_the_majority(tmp_path):
    settings = {"lr": 1e-9, "batch_size": 4, "eval_every": 1, "max_steps": 5}
    told = []
    result = train(tiny_base(), tiny_task(), "soft", tmp_path, train=settings, rows=tiny_rows(), notice=told.append)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    warned = [event for event in events if event["event"] == "doctor"]
    assert [(event["check"], event["step"]) for event in warned] == [("majority", 3)]
    assert len(told) == 1 and told[0].startswith("warning: majority: dev accuracy")
    ready = result.prepared
    case = Case(ready, sample(ready.splits["train"], 4), artifacts.load(tmp_path))
    finding = worst(case, "majority")
    assert finding.level == "warning" and "most frequent answer has 0.500" in finding.what


def test_an_artifact_that_is_not_of_this_base_or_not_as_good(tmp_path):
    from models import tiny_model, tiny_tokenizer

    from softprompt.base import Base
    from softprompt.errors import ArtifactError

    result = train(tiny_base(), tiny_task(), "probe", tmp_path, rows=tiny_rows(48, 24))
    held, ready = artifacts.load(tmp_path), result.prepared
    other = Base(tiny_model("llama", seed=4), tiny_tokenizer(), "other")
    with pytest.raises(ArtifactError, match="belongs to base"):
        of_artifact(held, other, 4)
    assert worst(Case(case_of("hard", "gpt2").ready, [], held), "artifact").level == "error"
    broken = {"weight": held.tensors["weight"] * float("nan"), "bias": held.tensors["bias"]}
    assert worst(Case(ready, [], artifacts.Artifact(held.manifest, broken, None)), "artifact").level == "error"
    with torch.no_grad():
        ready.method.weight.neg_()
    assert worst(Case(ready, [], held, full=True), "metric").level == "error"


def test_a_check_of_a_stranger_and_one_that_breaks():
    def mine(case):
        yield Finding("mine", "ok", f"{len(case.rows)} rows")

    def breaks(case):
        raise RuntimeError("out of memory\nand more")
        yield

    findings = examine(case_of("soft"), {"mine": mine, "breaks": breaks})
    assert [finding.level for finding in findings] == ["ok", "error"] and "out of memory" in str(findings[1])
    assert "\n" not in str(findings[1])


def test_before_training_is_quick():
    import time

    case = case_of("soft", rows=tiny_rows(200))
    began = time.process_time()
    told: list[tuple[str, int, int]] = []
    healthy(before_training(case.ready, lambda *what: told.append(what)))
    # that it runs is seen, although it has nothing to say
    assert told[0] == ("checking before training, rows", 0, 5) and told[-1] == ("checking before training", 5, 5)
    assert time.process_time() - began < 2
    doctor.refuse([Finding("a", "warning", "b")])


@pytest.mark.full  # tiny ones of its family above
@pytest.mark.real
def test_on_the_real_base():
    from softprompt.base import Base
    from softprompt.tasks import Task

    base, task = Base.load("smollm2"), Task.load("movie-reviews")
    rows = {name: part[:16] for name, part in task.load_data().items()}
    method = make_method("infix")
    ready = prepare(base, task, method, rows=rows, splits=("train", "dev"), seed=0)
    findings = found(Case(ready, sample(ready.splits["train"], 4)))
    assert not [str(finding) for finding in findings if finding.level == "error"]
    assert any("' positive'" in f.what or "' negative'" in f.what for f in findings if f.check == "positions")


def test_without_a_target_it_says_what_it_runs_on(monkeypatch, tmp_path):
    import json

    from test_cli import cli, refused

    from softprompt import machine

    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "secret-name"))
    done = cli("doctor", "--json", cwd=tmp_path)
    facts = json.loads(done.stdout)
    assert facts["versions"]["softprompt"] and facts["versions"]["torch"] == torch.__version__
    assert facts["processor"]["torch_capability"] == torch.backends.cpu.get_cpu_capability()
    assert 0 < facts["memory"]["available"] < facts["memory"]["total"]
    assert facts["cache"] == facts["cache"] | {"folder": "a folder outside of ~", "size": 0, "bundled_bases": {}}
    assert "secret-name" not in done.stdout and done.returncode == 0
    shown = cli("doctor", cwd=tmp_path).stdout
    assert "transformers" in shown and "instruction sets" in shown and "secret-name" not in shown
    refused(cli("doctor", "--full", cwd=tmp_path), "name one")

    monkeypatch.setenv("HOME", str(tmp_path))
    assert machine.describe()["cache"]["folder"] == "~/secret-name"
