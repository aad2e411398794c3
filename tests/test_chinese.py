"""Chinese text comes through whole: the example set, templates, labels, options, metrics, artifacts, what predict writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from models import tiny_base, tiny_tokenizer
from test_cli import cli
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from softprompt.artifact import load
from softprompt.base import Base
from softprompt.data import Row
from softprompt.methods import make_method
from softprompt.metrics import estimate
from softprompt.runtime import Runtime
from softprompt.tasks import Task
from softprompt.template import Prompter
from softprompt.training import prepare, train

ZH = Path(__file__).parent.parent / "examples" / "definitions_zh"
ROWS = [json.loads(line) for line in (ZH / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
SPEC = Task.load(ZH / "task.yaml").spec.model_dump(mode="json", exclude_none=True)
SHOWN = SPEC["template"] | {"input": SPEC["template"]["input"] + "\n{{ options }}", "answer": " {{ answer }}"}
FEW = {"epochs": 1, "batch_size": 4, "lr": 0.01}


def some(count=12, **more):
    """Rows of three fields, for all splits."""
    rows = [Row(values | more, f"r:{place}") for place, values in enumerate(ROWS[:count])]
    return {"train": rows[:4], "dev": rows[4:8], "test": rows[8:]}


def test_the_set_is_what_its_task_file_says():
    task = Task.load(ZH / "task.yaml")
    splits = task.load_data()
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 64, "dev": 32, "test": 32}
    assert task.left_out.copies == task.left_out.contradicting == 0
    fields = {name: {row.values["field"] for row in rows} for name, rows in splits.items()}
    assert sum(map(len, fields.values())) == 32 == len(set.union(*fields.values()))  # a field is in one split
    for rows in splits.values():  # no place is right more often than another
        assert len(set(Counter(row.values["answer"] for row in rows).values())) == 1
    right = Counter(row["choices"][row["answer"]] for row in ROWS)
    offered = Counter(choice for row in ROWS for choice in row["choices"])
    assert set(right.values()) == {1} and set(offered.values()) == {4} and right.keys() == offered.keys()
    for row in ROWS:
        text = row["choices"][row["answer"]]
        assert row["term"] not in text and text.endswith("。") and "\ufffd" not in text
    assert len({row["term"] for row in ROWS}) == 128


@pytest.mark.parametrize("chat", [False, True])
def test_prompts_and_answers_of_the_set_read_as_they_were_written(chat):
    tokenizer, task = tiny_tokenizer(), Task.load(SPEC | {"template": SHOWN | {"chat": chat}})
    prompter = Prompter(task.spec.template, tokenizer)
    for values in ROWS:
        shown = task.shown(values)
        ids = [*prompter.prefix_ids, *prompter.text(shown, "row"), *prompter.cue]
        text = tokenizer.decode(ids)
        assert text == prompter.prompt(shown) and f"请问“{values['term']}”的定义是什么？" in text
        assert all(f"{letter}. {choice}" in text for letter, choice in zip("ABCD", values["choices"], strict=True))
        for choice in values["choices"]:
            assert tokenizer.decode(prompter.answer(choice)).strip() == choice


def test_a_definition_scores_as_cmrc_scores_it():
    golds = [[row["choices"][row["answer"]]] for row in ROWS]
    for metric in ("f1_zh", "exact_match_zh"):
        assert estimate(metric, golds, [gold for (gold,) in golds]).value == 1
        assert estimate(metric, golds, [gold.rstrip("。") for (gold,) in golds]).value == 1  # punctuation aside
    # 21 characters without punctuation; the longest common run has the first 10, of the answer's 10
    assert estimate(
        "f1_zh", [["国家依法向个人和企业无偿征取的财政收入。"]], ["国家依法向个人和企业"]
    ).value == pytest.approx(2 * 10 / (19 + 10))


@pytest.mark.parametrize("by", ["likelihood", "letter", "pmi"])
def test_an_artifact_keeps_template_and_options(tmp_path, by):
    """Trained, saved, loaded: the template in the files is Chinese text (no escapes), the answer is one of the options."""
    task = Task.load(SPEC | {"template": SHOWN, "scoring": {"by": by}, "option": "（{letter}）{choice}"})
    result = train(Base(tiny_wide(), tiny_tokenizer(), "tiny-wide"), task, {"name": "infix", "length": 2}, tmp_path,
                   train=FEW, rows=some(), test=True)  # fmt: skip
    written = {name: (result.artifact / name).read_text(encoding="utf-8") for name in ("manifest.json", "README.md")}
    assert all("\ufffd" not in text and "\\u" not in text for text in written.values())
    assert "根据以下选项中，请问“{{ term }}”的定义是什么？" in written["manifest.json"]
    kept = Task.load(load(tmp_path).manifest.task)
    assert kept.spec.template == task.spec.template and kept.spec.option == "（{letter}）{choice}"
    runtime = Runtime(Base(tiny_wide(), tiny_tokenizer(), "tiny-wide"))
    runtime.add("zh", tmp_path)
    for values, found in zip(ROWS[:4], runtime.predict([dict(row) for row in ROWS[:4]]), strict=True):
        assert found.label in values["choices"] and list(found.probabilities) == values["choices"]


def tiny_wide():
    """A tiny model with room for four definitions, a byte a token."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 2048}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128, "head_dim": 16}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads))


def test_labels_in_chinese(tmp_path):
    """Labels, their words and the fields of rows: which field is this definition of?"""
    rows = [
        Row({"定义": row["choices"][row["answer"]], "label": row["field"]}, f"r:{k}") for k, row in enumerate(ROWS[:12])
    ]
    fields = list(dict.fromkeys(row.values["label"] for row in rows))
    task = Task.load(
        {
            "name": "fields",
            "template": {"instruction": "哪个领域？\n", "input": "定义：{{ 定义 }}", "cue": "\n领域：", "answer": "{{answer}}"},
            "verbalizer": {field: [field, f"{field}学"] for field in fields},
        }
    )  # fmt: skip
    train(tiny_base(), task, {"name": "soft", "length": 2}, tmp_path, train=FEW, rows={"train": rows, "dev": rows})
    runtime = Runtime(tiny_base())
    runtime.add("zh", tmp_path)
    found = runtime.predict([{"定义": row.values["定义"]} for row in rows])
    assert all(list(one.probabilities) == fields and one.label in fields for one in found)


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("utf-8", marks=pytest.mark.full)])
def test_predict_writes_chinese_wherever_it_writes(tmp_path, encoding):
    """To the standard output and to a file, whatever encoding the terminal's environment asks for."""
    model, tokenizer = tiny_wide(), tiny_tokenizer()
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    train(
        Base.load(tmp_path / "base"),
        Task.load(SPEC),
        {"name": "infix", "length": 2},
        tmp_path / "run",
        train=FEW,
        rows=some(),
    )
    asked = [{"term": row["term"], "choices": row["choices"]} for row in ROWS[:3]]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in asked), "utf-8")
    command = [sys.executable, "-m", "softprompt", "predict", "run", "--input", "rows.jsonl"]
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(sys.path)}
    # what a terminal reads is a real interpreter's
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    assert cli(*command[3:], "--output", "out.jsonl", cwd=tmp_path).returncode == 0
    written = [text.decode("utf-8") for text in (done.stdout, (tmp_path / "out.jsonl").read_bytes())]
    assert written[0] == written[1] and "\\u" not in written[0] and "\ufffd" not in written[0]
    for row, line in zip(asked, written[0].splitlines(), strict=True):
        found = json.loads(line)
        assert found["label"] in row["choices"] and list(found["probabilities"]) == row["choices"]


def word_piece():
    """A masked base as Chinese ones are (BERT): each Chinese character is a token, white space is none."""
    texts = [*SHOWN.values(), "ABCD.：？", *(row["term"] + "".join(row["choices"]) for row in ROWS)]
    characters = sorted(set("".join(map(str, texts))))
    vocabulary = {token: k for k, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False)
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    marks = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=marks
    )
    named = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    sizes = {"vocab_size": len(vocabulary), "hidden_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 512}
    model = BertForMaskedLM(BertConfig(**sizes, num_attention_heads=4, intermediate_size=128, pad_token_id=0))
    return Base(
        model, PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=512, **named), "tiny-chinese-bert"
    )


@pytest.mark.parametrize("by", ["likelihood", "letter"])
def test_options_on_a_chinese_masked_base(tmp_path, by):
    """Definitions are scored at as many masks as they have characters, letters at one; what is saved answers alike."""
    base = word_piece()
    task = Task.load(SPEC | {"template": SHOWN | {"end": "。"}, "scoring": {"by": by}})
    ready = prepare(base, task, make_method("hard"), rows=some())
    unknown = base.tokenizer.unk_token_id
    for example in ready.splits["dev"]:
        assert unknown not in [*ready.bound.prefix_ids, *example.text, *ready.bound.cue, *ready.bound.tail]
        words = task.candidates(example.values)[0]
        assert [len(ids) for ids in example.candidates] == [len(word) for word in words]
    result = train(base, task, {"name": "prefix", "length": 2}, tmp_path, train=FEW, rows=some(), test=True)
    runtime = Runtime(base)
    runtime.add("zh", tmp_path)
    assert runtime.evaluate("zh", some()["test"]).estimate == result.metrics["test"].estimate


def test_spans_on_a_chinese_masked_base(tmp_path):
    """A head points at a stretch of the context: whole characters, as they stand there."""
    rows = [
        Row(
            {"question": "什么定义？", "context": row["term"] + "：" + row["choices"][row["answer"]],
             "answers": {"text": [row["term"]], "answer_start": [0]}},
            f"r:{k}",
        )
        for k, row in enumerate(ROWS[:24])
    ]  # fmt: skip
    task = Task.load(
        {"name": "s", "type": "span", "template": {"input": "{{ question }}{{ context }}"}, "metric": "f1_zh"}
    )
    base, splits = word_piece(), {"train": rows, "dev": rows[:8], "test": rows[:8]}
    settings = {"epochs": 12, "lr": 2e-3, "batch_size": 8, "patience": 100}
    result = train(base, task, {"name": "full", "head": True}, tmp_path, train=settings, rows=splits)
    runtime = Runtime(base)
    runtime.add("zh", tmp_path)
    found = runtime.predict([row.values for row in rows[:8]])
    assert all(one.label and one.label in row.values["context"] for one, row in zip(found, rows, strict=False))
    assert result.metrics["dev"].estimate.value > 0.5
