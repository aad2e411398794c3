"""A sweep looks at all points before the first run; a search by Optuna goes on where it was killed, and prunes."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
from helpers import tiny_rows, tiny_task
from models import tiny_base

from softprompt.errors import ConfigError, MissingExtraError, SoftpromptError, TrainingError
from softprompt.metrics import Estimate
from softprompt.runfile import BaseSpec
from softprompt.training.loop import NotFiniteError
from softprompt.training.sweep import sweep
from softprompt.training.sweep.space import Choices, Range, corners, grid, read_settings
from softprompt.training.sweep.study import FREE_EVALUATIONS, RANDOM_TRIALS
from softprompt.training.sweep.trials import SweepContext, Trial
from softprompt.types import ignore_event
from softprompt.yaml_file import dump

RUN = "{task: task.yaml, method: soft, base: tiny, train: {max_steps: 4, batch_size: 4, eval_every: 1}}"
LAST = 5  # evaluations of a scripted run
SEARCHED = ["train.lr=0.001..0.1:log", "method.length=4..32", "seed=0,1"]


@pytest.fixture(scope="module")
def base():
    return tiny_base()


@pytest.fixture
def run(base, tmp_path, monkeypatch):
    """A run file in the current folder, on a base that is loaded already; without the doctor's checks, which take longer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(BaseSpec, "load", lambda self, progress=None: base)
    monkeypatch.setattr("softprompt.training.job.doctor.before_training", lambda *args: [])
    rows = [row.values for split in tiny_rows(8, 4, 4).values() for row in split]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {**tiny_task().spec.model_dump(exclude_none=True), "data": {"source": "rows.jsonl"}}
    task["data"]["split"] = {"train": 8, "dev": 4, "test": 4}
    Path("task.yaml").write_text(dump(task))
    Path("run.yaml").write_text(RUN)
    return Path("run.yaml")


@pytest.fixture
def scripted(run, monkeypatch):
    """Trials without training: the log loss is a function of the settings; gives what was trained, and what to do instead."""
    trained: list[str] = []
    instead: dict[str, Exception | KeyboardInterrupt] = {}

    def trial(self, point, folder, progress, test=False, on_event=ignore_event):
        rate, length = point.spec.train.lr, point.spec.method.get("length", 20)
        final = abs(math.log(rate / 0.02)) + length / 100 + point.spec.seed / 1000
        trained.append(point.name)
        on_event({"event": "start", "train": {"eval_every": 2, "max_steps": 2 * LAST}})
        for evaluation in range(1, LAST + 1):
            on_event({"event": "dev", "step": 2 * evaluation, "nll": final + 1 / evaluation})
            if evaluation == 2 and (error := instead.pop(str(len(trained)), None)):
                raise error
        accuracy = Estimate("accuracy", 0.5, (0.3, 0.7), 4)
        return Trial(point.name, point.settings, accuracy, final, LAST, 0, {"encode": 0.0})

    monkeypatch.setattr(SweepContext, "trial", trial)
    return trained, instead


def settings_of(*items):
    return read_settings(items)


def test_settings_are_values_or_ranges():
    lr, length, task = settings_of("train.lr=0.001..0.1:log", "method.length=4..64", "task=a,b")
    assert lr == Range("train.lr", 0.001, 0.1, whole=False, log=True) and str(lr) == "train.lr=0.001..0.1:log"
    assert length == Range("method.length", 4, 64, whole=True) and length.text(7.0) == "7"
    assert task == Choices("task", ("a", "b")) and task.varies and not settings_of("seed=1")[0].varies
    (real,) = settings_of("method.alpha=1.0..2")
    assert not real.whole and real.text(1.23456789) == "1.235" and real.text(1.99999999) == "2"
    (narrow,) = settings_of("train.lr=1.23441e-5..+2e-5")
    assert narrow.text(1.23442e-5) == "1.23441e-05" and float(narrow.text(1.9999999e-5)) == 2e-5
    for text in ("method.artifact=../runs/1..2/artifact", "method.text=[1..2, 3]", 'task.template.cue="1..2"', "a=.."):
        assert isinstance(settings_of(text)[0], Choices)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("train.lr", "expected key=value or key=a,b,c"),
        ("train.lr=0.1..", "a number at both ends"),
        ("train.lr=..0.1", "a number at both ends"),
        ("train.lr=1..2..3", "a number at both ends"),
        ("train.lr=0.1..0.01", "must be below the second"),
        ("train.lr=0.1..0.1", "write train.lr=0.1"),
        ("train.lr=0..0.1:log", "must begin above 0"),
        ("train.lr=0.1..1:lgo", "stands ':log' or nothing"),
        ("train.lr=0.1..1,2", "a range stands alone"),
    ],
)
def test_a_bad_range_is_told_in_one_line(item, words):
    with pytest.raises(ConfigError, match=words) as caught:
        settings_of(item)
    assert repr(item) in str(caught.value) and "\n" not in str(caught.value)


def test_ranges_are_for_searches_and_their_ends_are_looked_at(run):
    with pytest.raises(ConfigError, match=r"'seed=0..3': a range is searched with --optuna N"):
        grid(run, settings_of("seed=0..3"))
    names = [point.name for point in corners(run, settings_of("train.lr=0.01..0.1", "seed=0,1,2", "train.clip=1"))]
    assert names == [f"lr={lr}_seed={seed}" for lr in ("0.01", "0.1") for seed in range(3)]
    with pytest.raises(ConfigError, match="length: Input should be greater than 0"):
        corners(run, settings_of("method.length=0..4"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["train.word_dropout=0,0.1"], "trial 'word_dropout=0.1' cannot be run: train.word_dropout needs a base that"),
        (["method=soft,infix", "method.length=4"], None),
        (
            ["method.name=soft,infix", "method.length=4,900"],
            "trial 'name=soft_length=900' cannot be run: method.length is 900",
        ),
        (["method={name: infix, cue: 50}"], "method.cue is 50, but the template has"),
        (["method.name=soft,prefix", "method.head=true,false", "base.isolated=true"], None),
        (["seed=0,1", "method={name: prefix, layers: 9-}"], "method.layers is '9-', but base"),
    ],
)
def test_a_sweep_looks_at_every_point_before_the_first_run(run, monkeypatch, settings, words):
    monkeypatch.setattr(SweepContext, "trial", lambda *args, **how: pytest.fail("a run has begun"))
    if words is None:
        SweepContext(lambda *_: None, print).check(grid(run, read_settings(settings)))
        return
    with pytest.raises(SoftpromptError, match=words.replace("'", ".")):
        sweep(run, settings, Path("out"))
    assert not Path("out").exists()


def test_what_is_not_installed_is_told_before_the_first_run(run, scripted, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(SoftpromptError, match=r"trial 'optimizer=adamw8bit' cannot be run: .* needs bitsandbytes: pip"):
        sweep(run, ["train.optimizer=adamw,adamw8bit"], Path("out"))
    assert not scripted[0]


def test_a_search_looks_at_the_ends_of_its_ranges(run, scripted):
    with pytest.raises(ConfigError, match=r"trial 'length=900' cannot be run: method.length is 900"):
        sweep(run, ["method.length=4..900"], Path("out"), optuna=3)
    assert not scripted[0] and not Path("out").exists()


def test_a_search_finds_what_is_good_and_reports(run, scripted):
    notices: list[str] = []
    report = sweep(run, SEARCHED[:1], Path("out"), optuna=RANDOM_TRIALS + 12, prune=False, notice=notices.append)
    assert notices[0].startswith("searching train.lr=0.001..0.1:log for the lowest dev log loss")
    best = next(trial for trial in report["trials"] if trial["name"] == report["best"])
    assert best["dev_nll"] == min(trial["dev_nll"] for trial in report["trials"]) < 0.35
    away = [abs(math.log(float(trial["settings"][0].partition("=")[2]) / 0.02)) for trial in report["trials"]]
    first, later = away[:RANDOM_TRIALS], away[RANDOM_TRIALS:]
    assert sum(later) / len(later) < sum(first) / len(first)  # it has learned from the first ones
    assert report["study"] == "study.db" and report["objective"] == "dev_nll" and report["pruned"] == []
    assert json.loads(Path("out/sweep.json").read_text()) == report


@pytest.mark.full
def test_a_search_that_is_cut_short_goes_on_as_if_it_had_not(run, scripted, monkeypatch):
    from softprompt.training.sweep.study import Study

    monkeypatch.setattr("softprompt.training.sweep.study.RANDOM_TRIALS", 3)
    monkeypatch.setattr("softprompt.training.sweep.study.FULL_TRIALS", 2)
    trials = 9
    whole = sweep(run, SEARCHED, Path("whole"), optuna=trials)
    assert whole["pruned"]
    trained, instead = scripted
    trained.clear()
    instead |= {"3": KeyboardInterrupt(), "6": KeyboardInterrupt()}  # in the third trial, and later once more
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt, match="resumes the remaining trials"):
            sweep(run, SEARCHED, Path("cut"), optuna=trials)
    assert trained[2] == trained[3]
    # behind a run, before the study knows of it
    end = Study.end
    monkeypatch.setattr(Study, "end", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        sweep(run, SEARCHED, Path("cut"), optuna=trials)
    monkeypatch.setattr(Study, "end", end)
    killed_while_asking(Path("cut"))
    fewer = sweep(run, SEARCHED, Path("cut"), optuna=trials - 2)
    report = sweep(run, SEARCHED, Path("cut"), optuna=trials)
    assert len(fewer["trials"]) + len(fewer["pruned"]) == trials - 2
    for key in ("trials", "pruned", "best", "searched"):
        assert report[key] == whole[key]
    before = len(trained)
    assert sweep(run, SEARCHED, Path("cut"), optuna=trials)["trials"] == whole["trials"] and len(trained) == before


def killed_while_asking(folder: Path) -> None:
    """Leave a trial in the study that has no values yet."""
    import optuna

    study = optuna.load_study(study_name="softprompt", storage=f"sqlite:///{folder / 'study.db'}")
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    study.ask()


def test_a_run_that_is_worse_is_pruned_and_never_wins(run, scripted, monkeypatch):
    monkeypatch.setattr("softprompt.training.sweep.study.FULL_TRIALS", 3)
    trained, instead = scripted
    instead["2"] = NotFiniteError("step 9: loss nan on rows rows.jsonl:1; lower train.lr")
    notices: list[str] = []
    report = sweep(run, SEARCHED, Path("out"), optuna=8, notice=notices.append)
    diverged, *pruned = report["pruned"]
    assert diverged == {"name": trained[1], "why": "not_finite", "step": 4, "dev_nll": pytest.approx(0, abs=1e3)}
    assert any("loss nan" in line for line in notices)
    assert pruned and all(one["why"] == "median" and one["step"] > 2 * FREE_EVALUATIONS for one in pruned)
    names = {one["name"] for one in report["pruned"]}
    assert not names & {trial["name"] for trial in report["trials"]} and report["best"] not in names
    assert not names & set(trained[:1] + trained[2:4])
    kept = sweep(run, SEARCHED, Path("kept"), optuna=5, prune=False)
    assert len(kept["trials"]) == 5


def test_points_that_repeat_are_trained_once(run, scripted):
    notices: list[str] = []
    report = sweep(run, ["seed=0,1", "train.lr=0.02"], Path("out"), optuna=6, notice=notices.append)
    assert len(report["trials"]) == len(scripted[0]) == 2 and report["best"] == "seed=0"
    assert sum("again; its result is known" in line for line in notices) == 4


def test_where_all_is_given_up_it_says_so(run, scripted):
    scripted[1]["1"] = NotFiniteError("step 9: loss nan")
    with pytest.raises(TrainingError, match=r"all 1 trials were pruned; search lower values of train\.lr"):
        sweep(run, SEARCHED, Path("out"), optuna=1)


def test_a_study_is_of_one_search(run, scripted):
    sweep(run, SEARCHED, Path("out"), optuna=1)
    with pytest.raises(ConfigError, match=r"study of another search \(train.lr=0.001..0.1:log .*use another --out"):
        sweep(run, SEARCHED[:1], Path("out"), optuna=2)
    Path("run.yaml").write_text(RUN.replace("max_steps: 4", "max_steps: 5"))
    with pytest.raises(ConfigError, match=r"another search \(another run, data or base\)"):
        sweep(run, SEARCHED, Path("out"), optuna=2)
    Path("out/study.db").write_text("no database" * 1000)
    with pytest.raises(
        SoftpromptError, match=r"study\.db: the study cannot be read or written \(file is not a database\)"
    ):
        sweep(run, SEARCHED, Path("out"), optuna=2)


def test_without_optuna_one_line_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'softprompt\[optuna\]'"):
        sweep(run, SEARCHED, Path("out"), optuna=2)


def test_a_real_search_of_the_defaults_goes_on_from_a_checkpoint(run, monkeypatch):
    monkeypatch.setattr("softprompt.training.checkpoints.FolderStore.due", lambda self, at_once=False: True)

    def cut(what, done, total):
        if what.startswith("2/2") and "training" in what and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(run, [], Path("cut"), optuna=2, progress=cut)
    report = sweep(run, [], Path("cut"), optuna=2, test=True)
    first, second = report["trials"]
    assert first["name"] == "lr=0.01_length=20"  # the method's own settings come first
    events = [
        json.loads(line)["event"] for line in Path("cut", second["name"], "events.jsonl").read_text().splitlines()
    ]
    assert "resumed" in events and report["test"]["rows"] == 4
    whole = sweep(run, [], Path("whole"), optuna=2)
    without = [{key: value for key, value in one.items() if key != "seconds"} for one in report["trials"]]
    assert without == [{key: value for key, value in one.items() if key != "seconds"} for one in whole["trials"]]
    alone = Path("whole", second["name"], "artifact")
    for file in alone.iterdir():
        assert (
            report["best"] == second["name"]
            or file.read_bytes() == Path("cut", second["name"], "artifact", file.name).read_bytes()
        )
