"""One base, many artifacts: mixed batches equal one-by-one, swaps are safe, strangers are refused."""

from __future__ import annotations

import threading

import pytest
import torch
from covering import covering
from helpers import tiny_rows, tiny_task
from models import FAMILIES, tiny_base

from softprompt.base import Base
from softprompt.errors import ArtifactError, ConfigError, DataError
from softprompt.runtime import Runtime
from softprompt.training import train

SETTINGS = {"epochs": 1, "batch_size": 8, "lr": 0.05}
MIX = {
    "soft5": {"name": "soft", "length": 5},
    "soft2": {"name": "soft", "length": 2, "instruction": True},
    "prefix7": {"name": "prefix", "length": 7},
    "prefix1": {"name": "prefix", "length": 1},
    "infix4": {"name": "infix", "length": 4},
    "infix3e": {"name": "infix", "form": "embeddings", "length": 3, "cue": 4},
    "hard": {"name": "hard"},
    "probe": {"name": "probe"},
}


@pytest.fixture(scope="module", params=FAMILIES)
def served(request, tmp_path_factory):
    """A runtime with one artifact of every kind, and the bare base."""
    base, folder = tiny_base(request.param), tmp_path_factory.mktemp(request.param)
    runtime = Runtime(base)
    for place, (name, method) in enumerate(MIX.items()):
        # other words, other templates, other demonstrations: nothing about the rows is alike
        task = tiny_task(
            verbalizer={"good": "good" if place % 2 else "very good", "bad": "bad"},
            template={"instruction": "Good or bad? " * (place % 3), "input": "Text: {{ text }}", "cue": "\nIt is:"},
            demonstrations={"k": 2 * (place % 2)},
        )
        train(base, task, method, folder / name, train=SETTINGS, rows=tiny_rows(), seed=place)
        runtime.add(name, folder / name)
    runtime.add("bare", tiny_task())
    return runtime


def rows_for(names, count=27):
    texts = [row.values["text"] * (1 + place % 4) for place, row in enumerate(tiny_rows(count)["train"])]
    return [{"text": text, "artifact": names[place % len(names)]} for place, text in enumerate(texts)]


def test_mixed_batch_equals_one_by_one(served):
    rows = rows_for(served.names)
    mixed = served.predict(rows)
    for row, found in zip(rows, mixed, strict=True):
        alone = served.predict([row])[0]
        assert found.label == alone.label and found.artifact == row["artifact"]
        assert found.probabilities == pytest.approx(alone.probabilities, abs=1e-4)
    assert len({found.artifact for found in mixed}) == len(MIX) + 1


def test_evaluation_in_the_runtime_equals_that_of_training(tmp_path):
    base = tiny_base()
    result = train(base, tiny_task(), "infix", tmp_path, train=SETTINGS, rows=tiny_rows(), test=True)
    runtime = Runtime(base)
    runtime.add("it", tmp_path)
    found = runtime.evaluate("it", tiny_rows()["test"])
    assert found.estimate == result.metrics["test"].estimate
    for a, b in zip(found.outcomes, result.metrics["test"].outcomes, strict=True):
        assert a.scores == pytest.approx(b.scores, abs=1e-4)


def test_threads_see_only_their_own_artifact(served):
    rows = {name: rows_for([name], 6) for name in served.names}
    expected = {name: served.predict(rows[name]) for name in served.names}
    wrong = []

    def ask(name):
        for _ in range(4):
            found = served.predict(rows[name])
            for a, b in zip(found, expected[name], strict=True):
                if a.label != b.label or a.probabilities != pytest.approx(b.probabilities, abs=1e-5):
                    wrong.append((name, a, b))

    threads = [threading.Thread(target=ask, args=(name,)) for name in served.names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_name_can_be_swapped_and_content_decides(tmp_path):
    base = tiny_base()
    for seed, name in ((1, "a"), (2, "b")):
        train(
            base,
            tiny_task(),
            {"name": "soft", "length": 4, "init": "random"},
            tmp_path / name,
            train=SETTINGS,
            rows=tiny_rows(),
            seed=seed,
        )
    runtime, row = Runtime(base), [{"text": "joy"}]
    runtime.add("x", tmp_path / "a")
    first = runtime.predict(row)[0]
    runtime.add("x", tmp_path / "b")
    second = runtime.predict(row)[0]
    assert first.probabilities != second.probabilities
    runtime.add("x", tmp_path / "a")
    assert runtime.predict(row)[0] == first
    runtime.add("again", tmp_path / "a")
    assert runtime.get("x") is runtime.get("again")  # one content, compiled once
    runtime.remove("again")
    assert runtime.names == ["x"]


def test_unknown_artifact_and_missing_field(served):
    with pytest.raises(DataError, match="no artifact 'nobody'"):
        served.predict([{"text": "x", "artifact": "nobody"}])
    with pytest.raises(DataError, match="names no artifact"):
        served.predict([{"text": "x"}])
    with pytest.raises(DataError, match="did you mean 'txt'"):
        served.predict([{"txt": "x", "artifact": "bare"}])


def test_an_answer_says_that_its_text_was_cut():
    runtime = Runtime(tiny_base("llama"))
    runtime.add("short", tiny_task(max_text_tokens=20))
    runtime.add("long", tiny_task())
    rows = [{"text": text, "artifact": name} for name in runtime.names for text in ("A film. ", "A film. " * 6)]
    assert [found.truncated for found in runtime.predict(rows)] == [False, True, False, False]


def test_demonstrations_that_were_not_drawn_are_not_left_out_in_silence():
    with pytest.raises(ConfigError, match="not drawn yet"):
        Runtime(tiny_base()).add("x", tiny_task(demonstrations={"k": 4}))
    with pytest.raises(DataError, match="no artifact 'x'"):
        Runtime(tiny_base()).remove("x")


def test_artifact_of_another_base_is_refused(tmp_path):
    train(tiny_base(), tiny_task(), "soft", tmp_path, train=SETTINGS, rows=tiny_rows())
    from models import tiny_model, tiny_tokenizer

    other = Base(tiny_model("llama", seed=9), tiny_tokenizer(), "other")
    with pytest.raises(ArtifactError, match=r"belongs to base 'tiny-llama'.*this is 'other'"):
        Runtime(other).add("x", tmp_path)
    same_weights = Base(tiny_model("llama"), tiny_tokenizer(bos=True), "tiny-llama")
    with pytest.raises(ArtifactError, match="tokenizer"):
        Runtime(same_weights).add("x", tmp_path)


LOADABLE = {
    "soft": {"name": "soft", "length": 6},
    "prefix": {"name": "prefix", "length": 6},
    "reparameterised prefix": {"name": "prefix", "length": 6, "reparameterization": "mlp", "hidden": 16},
    "p_tuning": {"name": "p_tuning", "length": 6, "encoder": "lstm", "hidden": 16},
    "lora": {"name": "lora", "r": 2},
    "rslora": {"name": "lora", "r": 2, "rslora": True, "target_modules": "all-linear"},
    "dora": {"name": "lora", "r": 2, "dora": True},
    "lora of upper layers": {"name": "lora", "r": 2, "layers": "1-"},
    "activated lora": {"name": "lora", "r": 2, "activate": "cue"},
    "ia3": {"name": "peft:IA3"},
    "oft": {"name": "peft:OFT"},
}


@pytest.mark.filterwarnings("ignore")  # PEFT's advice on positions
@pytest.mark.parametrize(("name", "family"), covering(list(LOADABLE), ["gpt2", "qwen", "llama"]))
def test_plain_peft_loads_the_folder_and_gives_the_same_logits(tmp_path, name, family):
    peft = pytest.importorskip("peft")
    from models import tiny_model

    method = LOADABLE[name]
    if method["name"] == "peft:OFT" and family == "gpt2":
        pytest.skip("PEFT's OFT does not go into GPT-2's Conv1D")
    base = tiny_base(family)
    result = train(base, tiny_task(), method, tmp_path, train=SETTINGS, rows=tiny_rows())
    ready = result.prepared
    model = peft.PeftModel.from_pretrained(tiny_model(family), result.artifact).eval()
    plain = tiny_model(family)
    for example in ready.splits["dev"][:4]:
        ids = torch.tensor([[*ready.bound.prefix_ids, *example.text, *ready.bound.cue]])
        with torch.no_grad():
            theirs = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1]
            ((_, batch),) = ready.engine.contexts([example], ready.method.learned())
            ours = batch.base.logits(batch.last)[0]
            assert not torch.allclose(theirs, plain(ids).logits[0, -1], atol=1e-2)
        assert torch.allclose(theirs, ours, atol=1e-4)


@pytest.mark.parametrize("family, method", [("bert", "probe"), ("bert", "hard"), ("t5", "hard"), ("llama", "probe")])
def test_texts_leave_nothing_behind(tmp_path, family, method):
    """A runtime is asked about new texts as long as it lives, so its engines keep no state of them."""
    base, changes = tiny_base(family), {"max_steps": 1} if method == "probe" else {}
    runtime = Runtime(base)
    if method == "probe":
        train(base, tiny_task(), method, tmp_path / "run", train=changes, rows=tiny_rows(), check=False)
    runtime.add("one", tiny_task() if method == "hard" else tmp_path / "run")
    first = runtime.predict([f"joy {place}" for place in range(5)])
    assert first[0].probabilities == pytest.approx(runtime.predict(["joy 0"])[0].probabilities, abs=1e-5)
    engine = runtime.get("one").engine
    assert engine.kept_states == 0 and engine.cache.nbytes == 0
