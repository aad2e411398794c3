"""The task of PEFT's comparison of methods on local rows with the columns of MetaMathQA and GSM8K; nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from helpers import bound_form
from models import tiny_model, tiny_tokenizer
from test_cli import cli

import softprompt.benchmarks
from softprompt.benchmarks.compare.drive import begin, drive
from softprompt.benchmarks.compare.executors import make_workers
from softprompt.benchmarks.compare.suite import load_suite
from softprompt.tasks import Task

TASK = Path(softprompt.benchmarks.__file__).parent / "suites" / "metamath-task.yaml"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Folders that the package datasets reads as it reads a hub's: {"meta-math/MetaMathQA": …, "openai/gsm8k": …}."""
    pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("math")
    metamath, gsm8k = folder / "metamath", folder / "gsm8k"
    metamath.mkdir(), (gsm8k / "main").mkdir(parents=True)
    worked = "We add {0} and {0}.\nSo {0} + {0} = {1}.\n{2}{1}"
    rows = []
    for k in range(48):  # two wordings of each question, and a second answer to every fourth
        asked = {"type": "GSM_Rephrased" if k % 2 else "GSM_AnsAug", "original_question": f"What is {k // 2} twice?"}
        asked["query"] = f"Say {k // 2} two times" if k % 2 else asked["original_question"]
        rows.append({**asked, "response": worked.format(k // 2, k // 2 * 2, "#### 4\nThe answer is: ")})
        rows += [{**asked, "response": "Twice. The answer is: 1"}] if k % 4 == 0 else []
    (metamath / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tests = [{"question": f"Twice {k}?", "answer": worked.format(k, f"{2 * k:,}", "#### ")} for k in (700, 800, 3)]
    (gsm8k / "main" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tests))
    (gsm8k / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files: [{split: test, path: main/test.jsonl}]\n---\n"
    )
    return {"meta-math/MetaMathQA": metamath, "openai/gsm8k": gsm8k}


def local(sources) -> dict:
    """The task file, its data from folders."""
    text = TASK.read_text(encoding="utf-8").replace("[:32000]", "")  # the folder holds fewer
    for name, folder in sources.items():
        assert name in text
        text = text.replace(name, str(folder))
    return yaml.safe_load(text)


def test_the_file_is_a_task():
    task = Task.load(TASK)
    assert (task.name, task.spec.metric, task.spec.generation.max_new_tokens) == ("metamath", "final_number", 300)


def test_rows_and_texts_are_those_of_peft(sources):
    rows = Task.load(local(sources)).load_data()
    asked = [row.values["question"] for row in rows["train"] + rows["dev"]]
    assert (len(asked), len(set(asked))) == (60, 48)  # second answers to a question are kept, in the same split
    apart = [{row.values["original_question"] for row in rows[name]} for name in ("train", "dev")]
    assert all(apart) and not apart[0] & apart[1]
    assert [row.values["question"] for row in rows["test"]] == ["Twice 700?", "Twice 800?", "Twice 3?"]
    form = bound_form(Task.load(local(sources)), tiny_tokenizer(bos=True), 2048)
    values = rows["test"][0].values
    found = form.encode(values)
    # PEFT's template: "Question: {query} Think step by step.\nAnswer:" and the response right behind it
    text = f"Question: {values['question']} Think step by step.\nAnswer:{values['answer']}"
    answer = found.candidates[0]
    ids = (*form.bound.prefix_ids, *found.text, *form.bound.cue, *form.spoken(answer))
    assert form.bound.prompter.tokenizer.decode(ids) == "<s>" + text and answer[-1] == 1  # </s>


def test_it_trains_and_is_tested(sources, tmp_path):
    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    task = local(sources)
    task["generation"]["max_new_tokens"] = 8  # this base has 256 positions
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    run = {"base": "base", "task": "task.yaml", "method": {"name": "soft", "length": 4}}
    run["train"] = {"max_steps": 2, "batch_size": 4, "schedule": "cosine", "warmup": 0.1, "weight_decay": 0.1}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**run, "base": str(tmp_path / "base")}))
    done = cli("train", "run.yaml", "--out", "out", "--test", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "artifact" / "manifest.json").read_text())
    found = manifest["metrics"]["test"]
    assert found["metric"] == "final_number" and found["rows"] == 3 and found["value"] == 0.0


@pytest.mark.full  # other suites run in the default run
def test_the_suite_runs_on_a_small_base(sources, tmp_path):
    """The ready suite with all its contenders; base, rows and the numbers of steps are others."""
    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))
    task = local(sources)
    task["generation"]["max_new_tokens"] = 4
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    changes = [f"bases=[{tmp_path / 'base'}]", f"tasks=[{tmp_path / 'task.yaml'}]", "sizes=[16]", "dev=8", "few_shot=2"]
    suite = load_suite("metamath", [*changes, "train.max_steps=2", "seeds=[0,1]"])
    work = begin(suite, tmp_path / "out")
    drive(work, make_workers("here", 1, suite.cache))
    assert [record.reason for record in work.failed] == [] and work.left() == 0
    finals = [record for record in work.records.values() if record.stage == "final"]
    assert {record.place.contender for record in finals} == {row.name for row in suite.rows()}
    assert all(record.tests["metamath"].metric == "final_number" for record in finals)
