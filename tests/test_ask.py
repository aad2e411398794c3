"""One document, many artifacts: it is read once, and each answer is the one that the artifact alone gives."""

from __future__ import annotations

import json
import threading

import pytest
import torch
from helpers import close, tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer
from peft import PeftModel
from typer.testing import CliRunner

from softprompt import Runtime
from softprompt.artifact import load
from softprompt.base import Base
from softprompt.base.scores import Scoring, attend, attend_behind, joined
from softprompt.cli import import_verbs
from softprompt.cli.app import app
from softprompt.cli.ask import _document
from softprompt.documents import DocumentCache
from softprompt.engine import Reading, text_key
from softprompt.engine.cache import RowCache
from softprompt.errors import DataError
from softprompt.readings import reading_digest
from softprompt.tasks import Task
from softprompt.template import Prompter, TemplateSpec
from softprompt.training import train

SETTINGS = {"epochs": 1, "batch_size": 8, "lr": 0.05}
SHARING = {
    "infix4": {"name": "infix", "length": 4},
    "infix3e": {"name": "infix", "form": "embeddings", "length": 3, "cue": 4},
    "activated": {"name": "lora", "r": 2, "activate": "cue"},
    "hard": {"name": "hard"},
    "probe": {"name": "probe"},
}
ALONE = {"soft5": {"name": "soft", "length": 5}, "prefix7": {"name": "prefix", "length": 7}, "lora": {"name": "lora"}}
LONG, SHORT = "joy and sun " * 13, "mud and rain"


def asking(question: str, **changes) -> Task:
    template = {"instruction": "Read. ", "input": "Text: {{ text }}", "question": question, "cue": "\nIt is:"}
    return tiny_task(template=template, **changes)


OTHERS = [pytest.param(family, marks=pytest.mark.full) for family in ("gpt2", "qwen")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the artifacts of `served` lie."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module", params=["llama", "gemma3", *OTHERS])
def served(request, folder):
    """A runtime with artifacts that share a text's reading, and some that cannot."""
    runtime = Runtime(tiny_base(request.param))
    for place, (name, method) in enumerate({**SHARING, **ALONE}.items()):
        task = asking(f"\nIs it {name}?", verbalizer={"good": ("good", "very good")[place % 2], "bad": "bad"})
        train(runtime.base, task, method, folder / name, train=SETTINGS, rows=tiny_rows(), seed=place, fresh=True)
        runtime.add(name, folder / name)
    written = {**asking("\nWhy?").spec.model_dump(exclude={"verbalizer", "scoring"}), "type": "generation"}
    runtime.add("writes", Task.load({**written, "metric": "exact_match", "generation": {"max_new_tokens": 4}}))
    return runtime


class Counting:
    """How many tokens a base runs."""

    def __init__(self, monkeypatch) -> None:
        self.tokens = 0
        plain = Base.forward

        def forward(base, inputs, lengths, *rest, **more):
            self.tokens += sum(lengths)
            return plain(base, inputs, lengths, *rest, **more)

        monkeypatch.setattr(Base, "forward", forward)

    def of(self, do) -> int:
        before = self.tokens
        do()
        return self.tokens - before


@pytest.mark.parametrize("text", [LONG, SHORT], ids=["long", "short"])
def test_each_artifact_answers_as_it_does_alone(served, text):
    served.documents.clear()
    for _ in range(2):  # the second time from what was kept
        together = served.ask(text)
        assert [found.artifact for found in together] == served.names
        for found in together:
            alone = served.predict([text], found.artifact)[0]
            assert found.label == alone.label
            assert found.probabilities == pytest.approx(alone.probabilities, abs=1e-5)


def test_a_document_is_read_once(served, monkeypatch):
    served.documents.clear()
    counting = Counting(monkeypatch)
    one = counting.of(lambda: served.ask(LONG, ["infix4"]))
    served.documents.clear()
    text = len(served.get("infix4").bound.prompter.text({"text": LONG}, "row"))
    assert one > text >= 128
    sharing = counting.of(lambda: served.ask(LONG, list(SHARING)))
    assert sharing - one < text, "the others read it as well"
    again = counting.of(lambda: served.ask(LONG, list(SHARING)))
    assert again < (sharing - one) / 2, "it was read again, or the questions behind it were"
    assert counting.of(lambda: served.ask(LONG, ["soft5"])) > text, (
        "what is learned in front changes every state of the text"
    )


def test_questions_are_kept_behind_the_document(served, monkeypatch):
    counting = Counting(monkeypatch)
    served.ask(LONG, ["infix4"])
    assert counting.of(lambda: served.ask(LONG, ["infix4"])) <= 12, "the last token of the cue, and the labels' words"


def test_the_least_recently_used_text_goes_first():
    base = tiny_base()
    one = DocumentCache()
    runtime = Runtime(base, one)
    runtime.add("a", asking("\nA?"))
    texts = [f"{LONG}{number}" for number in range(3)]
    runtime.ask(texts[0])
    size = one.state.nbytes
    runtime = Runtime(base, small := DocumentCache(int(2.5 * size)))
    runtime.add("a", asking("\nA?"))
    for text in (texts[0], texts[1], texts[0], texts[2]):
        runtime.ask(text)
    assert (small.state.texts, small.state.hits, small.state.misses) == (2, 1, 3)
    assert small.state.nbytes <= small.budget
    runtime.ask(texts[0])
    assert small.state.hits == 2, "it was used last but one, so it is still here"
    runtime.ask(texts[1])
    assert small.state.misses == 4
    small.clear()
    assert small.state.texts == small.state.nbytes == 0


def test_a_text_that_is_larger_than_the_budget_is_answered_and_not_kept():
    runtime = Runtime(tiny_base(), none := DocumentCache(0))
    runtime.add("a", asking("\nA?"))
    assert runtime.ask(LONG)[0].probabilities == pytest.approx(runtime.predict([LONG])[0].probabilities, abs=1e-5)
    assert none.state.texts == 0


def test_texts_are_kept_by_content_and_never_by_name():
    runtime = Runtime(tiny_base())
    other = tiny_task(template={"instruction": "Other. ", "input": "Text: {{ text }}", "cue": "\nIt is:"})
    for task in (asking("\nA?"), other, asking("\nB?")):
        runtime.add("same", task)  # replaced under its name
        found = runtime.ask(LONG)[0]
        assert found.probabilities == pytest.approx(runtime.predict([LONG])[0].probabilities, abs=1e-5)
    assert runtime.documents.state.texts == 2, "one behind each instruction"


def test_threads_get_their_own_answers_while_artifacts_come_and_go(served):
    texts = [LONG, SHORT, "sun " * 40, "rain " * 40]
    names = [*SHARING, "soft5"]
    expected = {text: [found.probabilities for found in served.ask(text, names)] for text in texts}
    served.documents.clear()
    wrong, stop = [], threading.Event()

    def ask(start: int) -> None:
        for step in range(3):
            text = texts[(start + step) % len(texts)]
            for found, right in zip(served.ask(text, names), expected[text], strict=True):
                if found.probabilities != pytest.approx(right, abs=1e-5):
                    wrong.append((text, found))

    def change() -> None:
        while not stop.is_set():
            served.add("passing", asking("\nPassing?"))
            served.ask(SHORT, ["passing"])
            served.documents.clear()
            served.remove("passing")

    changing = threading.Thread(target=change)
    asking_threads = [threading.Thread(target=ask, args=(place,)) for place in range(4)]
    changing.start()
    for thread in asking_threads:
        thread.start()
    for thread in asking_threads:
        thread.join()
    stop.set()
    changing.join()
    assert not wrong


def test_ask_refuses_in_one_line():
    runtime = Runtime(tiny_base())
    with pytest.raises(DataError, match="no artifact is loaded to ask"):
        runtime.ask("a text")
    runtime.add("one", asking("\nA?"))
    runtime.add("two", tiny_task(template={"input": "{{ title }}: {{ text }}", "cue": "\nIt is:"}))
    with pytest.raises(DataError, match="no artifact 'three' is loaded"):
        runtime.ask("a text", ["three"])
    with pytest.raises(DataError, match="is a text, but task 'tiny' reads 'text', 'title'"):
        runtime.ask("a text")
    assert len(runtime.ask({"text": "a text", "title": "A"})) == 2


def test_a_question_is_a_cue_in_which_nothing_is_learned():
    """Of an infix both stand before the prompt, so the same words in the cue make the same run."""
    results = []
    for template in ({"question": "\nIs it good?", "cue": "\nIt is:"}, {"cue": "\nIs it good?\nIt is:"}):
        task = tiny_task(template={"input": "Text: {{ text }}", **template})
        results.append(train(tiny_base(), task, "infix", train=SETTINGS, rows=tiny_rows(), seed=1))
    asked, plain = ([event["loss"] for event in one.events if event["event"] == "step"] for one in results)
    assert asked == plain and len(asked) > 1
    prompts = [one.prepared.method.export()["infix_kv"] for one in results]
    assert torch.equal(*prompts)


def test_activated_lora_acts_behind_the_question(tmp_path):
    """PEFT is told the cue's tokens alone, and its own forward of the whole row gives our logits."""
    base = tiny_base()
    result = train(base, asking("\nIs it good?"), SHARING["activated"], tmp_path, train=SETTINGS, rows=tiny_rows())
    ready = result.prepared
    assert "question: run once per row" not in ready.engine.plan.explain()
    assert "[text] + [question]: run once per row, kept" in ready.engine.plan.explain()
    rows = ready.splits["dev"][:4]
    ours, _ = ready.form.logits(ready.engine, rows, ready.method.learned())
    plain = PeftModel.from_pretrained(tiny_model("llama"), tmp_path / "artifact").eval()
    theirs = []
    for row in rows:
        ids = torch.tensor([[*ready.bound.prefix_ids, *row.text, *ready.bound.behind, *row.answer[:-1]]])
        theirs.append(plain(input_ids=ids).logits[0, -len(row.answer) :])
    close(ours, torch.cat(theirs))


def test_a_template_without_a_question_is_written_as_before():
    template = asking("").spec.model_dump(mode="json")["template"]
    assert "question" not in template
    assert asking("\nA?").spec.model_dump(mode="json")["template"]["question"] == "\nA?"


@pytest.mark.parametrize("chat", [False, True])
def test_the_prompt_is_the_tokens_of_its_text(chat):
    base = tiny_base()
    task = tiny_task(template={"input": "Text: {{ text }}", "question": " Why?", "cue": "\nIt is:", "chat": chat})
    bound = train(base, task, "hard", rows=tiny_rows()).prepared.bound
    values = {"text": "joy"}
    whole = base.tokenizer(bound.prompter.prompt(values), add_special_tokens=False)["input_ids"]
    ours = [*bound.prefix_ids, *bound.prompter.text(values, "row"), *bound.question, *bound.cue]
    assert ours == whole
    assert base.tokenizer.decode(bound.question) == " Why?"


def test_white_space_at_the_end_of_a_question_goes_where_the_chat_template_removes_it():
    """A block of YAML ends in a line break, and many chat templates strip what a turn holds."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("m['content']", "m['content'] | trim")
    prompter = Prompter(TemplateSpec(input="{{ text }}", question="\nWhy?\n", chat=True), tokenizer)
    text = prompter.prompt({"text": "joy"})
    assert "joy\nWhy?</s>" in text and tokenizer.decode(prompter.question) == "\nWhy?"
    ours = [*prompter.prefix_ids, *prompter.text({"text": "joy"}, "row"), *prompter.question, *prompter.cue]
    assert ours == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_demonstrations_show_the_question():
    task = asking(" Why?", demonstrations={"k": 2})
    shown = train(tiny_base(), task, "hard", rows=tiny_rows()).prepared.bound.prompter.prompt({"text": "joy"})
    assert shown.count(" Why?\nIt is:") == 3


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(3, 6, 2, 5), (2, 4, 4, 1)], ids=["grouped", "one query"])
def test_shared_keys_that_are_not_copied_give_the_same(shape, masked):
    rows, heads, groups, width = shape
    generator = torch.Generator().manual_seed(0)

    def random(*size):
        return torch.randn(*size, generator=generator)

    query, own = random(rows, heads, width, 8), (random(rows, groups, 7, 8), random(rows, groups, 7, 8))
    shared = random(1, groups, 30, 8), random(1, groups, 30, 8)
    mask = torch.rand(rows, 1, width, 37, generator=generator) > 0.3 if masked else None
    found = attend_behind(query, shared, *own, mask, Scoring())
    copied = [joined([kept], mine, rows) for kept, mine in zip(shared, own, strict=True)]
    torch.testing.assert_close(found, attend(query, *copied, mask, Scoring()), atol=1e-5, rtol=0)


def test_long_shared_keys_are_not_copied(served, monkeypatch):
    """Else the equality above would test nothing of the engine."""
    called = []
    plain = attend_behind
    monkeypatch.setattr("softprompt.base.interface.attend_behind", lambda *a: called.append(1) or plain(*a))
    served.ask(LONG, list(SHARING)[:2])
    assert called


def test_the_reading_of_an_artifact_says_with_which_it_shares_texts(served, folder):
    """As manifests have it, and as the engine finds it by its tokens."""
    for name in (*SHARING, *ALONE):
        prompt = served.get(name)
        key = text_key(prompt.engine, prompt.form.encode({"text": LONG}))
        digest = reading_digest(load(folder / name).manifest)
        assert (key is None) == (digest is None) == (name in ALONE)
    assert len({reading_digest(load(folder / name).manifest) for name in SHARING}) == 1


def test_another_instruction_is_another_reading(tmp_path):
    base = tiny_base()
    digests = []
    for place, task in enumerate((asking("\nA?"), asking("\nB?"), tiny_task())):
        train(base, task, "infix", tmp_path / str(place), train={"max_steps": 1}, rows=tiny_rows())
        digests.append(reading_digest(load(tmp_path / str(place)).manifest))
    assert digests[0] == digests[1] != digests[2]


def test_ask_from_the_shell(folder, tmp_path, monkeypatch):
    base = tmp_path / "base"
    tiny_model("llama").save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    (tmp_path / "letter.txt").write_text(LONG + "\n", encoding="utf-8")
    runs = [f"--with={tmp_path / name}" for name in ("one", "two", "three")]
    for name, method in (("one", "infix"), ("two", SHARING["activated"]), ("three", "soft")):
        train(Base.load(base), asking(f"\n{name}?"), method, tmp_path / name, train={"max_steps": 1}, rows=tiny_rows())
    import_verbs()
    shell = CliRunner()
    found = shell.invoke(app, ["ask", str(tmp_path / "letter.txt"), *runs])
    assert found.exit_code == 0, found.output
    assert "read 2 times for 3 artifacts" in found.output and found.output.count("with others") == 2
    told = json.loads(shell.invoke(app, ["ask", str(tmp_path / "letter.txt"), *runs, "--json"]).stdout)
    assert [answer["artifact"] for answer in told["answers"]] == ["one", "two", "three"]
    shown = json.loads(shell.invoke(app, ["inspect", str(tmp_path / "one"), "--json", "--words=0"]).stdout)
    assert shown["reading"] == reading_digest(load(tmp_path / "two").manifest)
    for content, message in ((b"", "is empty"), (b"\xff\xfe", "is not UTF-8")):
        (tmp_path / "bad.txt").write_bytes(content)
        refused = shell.invoke(app, ["ask", str(tmp_path / "bad.txt"), *runs])
        assert isinstance(refused.exception, DataError) and message in str(refused.exception)


@pytest.mark.parametrize(
    "written, read",
    [("a\n", "a"), ("a\n\n", "a\n"), ("a\r\n", "a"), ("a\r\n\r\n", "a\r\n"), ("\na \t", "\na \t"), ("a\r", "a\r")],
)
def test_the_last_line_break_alone_is_left_out(tmp_path, written, read):
    (tmp_path / "letter.txt").write_bytes(written.encode())
    assert _document(tmp_path / "letter.txt") == read


def test_sources_that_cannot_be_asked_about(folder, tmp_path):
    import_verbs()
    rows = tmp_path / "rows.csv"
    rows.write_text("text\na\n", encoding="utf-8")
    messages = {tmp_path / "none.txt": "softprompt ask -", tmp_path: "cannot be read", rows: "use softprompt predict"}
    for source, message in messages.items():
        refused = CliRunner().invoke(app, ["ask", str(source), "--with", str(tmp_path)])
        assert isinstance(refused.exception, DataError) and message in str(refused.exception)
        assert "written" not in str(refused.exception)


def test_tokens_in_front_of_all_rows_run_once_for_all_artifacts(monkeypatch):
    counting, runtime = Counting(monkeypatch), Runtime(tiny_base())
    first = counting.of(lambda: runtime.add("a", asking("\nA?")))
    assert first == len(runtime.get("a").bound.prefix_ids) > 0
    assert counting.of(lambda: runtime.add("b", asking("\nB?"))) == 0
    assert counting.of(lambda: runtime.add("c", tiny_task())) > 0, "another instruction"
    alone = Runtime(tiny_base())
    alone.add("b", asking("\nB?"))
    expected = alone.predict([SHORT])[0].probabilities
    assert runtime.predict([SHORT], "b")[0].probabilities == pytest.approx(expected, abs=1e-6)


def test_a_call_measures_the_texts_that_it_asks_about_and_no_others(monkeypatch):
    """With thousands of texts kept, or hundreds that have to go, a sum over all of them would cost more than the answers."""
    runtime = Runtime(tiny_base(), DocumentCache())
    for name in "ab":
        runtime.add(name, asking(f"\n{name}?"))
    for place in range(20):
        runtime.ask(f"{LONG} {place}")
    state, measured = runtime.documents.state, []
    plain = Reading.nbytes.fget
    monkeypatch.setattr(Reading, "nbytes", property(lambda self: measured.append(self) or plain(self)))
    runtime.documents.budget = state.nbytes // 4
    runtime.ask(f"{LONG} 19")
    assert len(measured) == 1
    kept = runtime.documents._readings.values()
    assert runtime.documents.state.nbytes == sum(plain(one) for one in kept) <= state.nbytes // 4
    assert len(kept) in (4, 5)


def test_the_bytes_of_rows_are_counted_while_others_are_kept():
    """One thread may read on behind a text while another counts what is kept."""
    cache = RowCache((2, 2, 1, 0, 4), torch.float32)

    class Row:
        def __iter__(self):
            cache._rows[(len(cache._rows),)] = (0, 0, 0)
            return iter((0, 0, 3))

    cache._rows[(9,)] = Row()
    assert cache.nbytes == 3 * 2 * 2 * 4 * 4
