"""Figures in README and docs are those of their records, and none stands there without one."""

import json

import pytest

from softprompt.benchmarks import commands
from softprompt.benchmarks.figures import formats, picture
from softprompt.benchmarks.figures.__main__ import ROOT, main, pages
from softprompt.benchmarks.figures.check import complaints
from softprompt.benchmarks.figures.commands import name_of
from softprompt.benchmarks.figures.defaults import TITLES
from softprompt.benchmarks.figures.keys import Keys
from softprompt.benchmarks.figures.marks import figures, unmarked, written
from softprompt.errors import DataError

KEYS = Keys(ROOT)


@pytest.mark.parametrize("page", pages(ROOT), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_figure_is_its_records(page):
    told = list(complaints(page, KEYS))
    assert not told, "\n" + "\n".join(told)


PAGE = """# Title of 3 points

A prompt gets <!-- figure a/b -->85.7 %<!-- end --> right [81.2, 89.3] in 4 s, at a 95 % interval.
The rate is `0.03`; [text](benchmarks.md#0.25-points) <!-- 12 s -->

```sh
sleep 4 s
```
<!-- figure table -->

| a |
| --- |

<!-- end -->
"""


def test_marks_and_what_has_none():
    assert [(figure.key, figure.text, figure.line) for figure in figures(PAGE)] == [
        ("a/b", "85.7 %", 3),
        ("table", "| a |\n| --- |", 9),
    ]
    assert list(unmarked(PAGE)) == [(1, "3 points"), (3, "81.2"), (3, "89.3"), (3, "4 s")]
    values = {"a/b": "85.8 %", "table": "| b |\n| --- |"}
    assert "<!-- figure a/b -->85.8 %<!-- end -->" in written(PAGE, values.__getitem__)
    assert "-->\n\n| b |\n| --- |\n\n<!--" in written(PAGE, values.__getitem__)
    assert written(written(PAGE, values.__getitem__), values.__getitem__) == written(PAGE, values.__getitem__)


@pytest.mark.parametrize(
    "text",
    [
        "3.3 times faster",
        ".871 of them",
        "0.85 here",
        "2.5 points",
        "12 min",
        "454 KiB",
        "78.4 ± 0.6 %",
        "(9 s)",
        "−3.2 points",
        "-3 %",
        "81-89 %",
        "8 percent",
        "2.3×",
        "3-fold",
        "8\N{NO-BREAK SPACE}%",
        "12\nseconds",
    ],
)
def test_looks_measured(text):
    assert len(list(unmarked(text))) == 1


@pytest.mark.parametrize("text", ["it ends at 87.2", "12 sec", "40 tokens per second", "9 rows a second", "39.4 tok/s"])
def test_a_bare_number_can_be_a_measurement(text):
    assert list(unmarked(text))


@pytest.mark.parametrize(
    "text", ["95 % intervals", "Python 3.10", "20 tokens", "`0.03`", "version 0.1.0", "2026-11-30", "3 seeds"]
)
def test_looks_like_no_measurement(text):
    assert not list(unmarked(text))


def test_complaints_name_file_and_line(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(
        "one\n<!-- figure quick/infix/size -->1 KiB<!-- end -->, "
        "<!-- figure quick/infx/size -->2 KiB<!-- end -->, 3 s, <!-- figure "
    )
    assert main(["--check", str(page)]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith(f"{page}:2: quick/infix/size reads '1 KiB', its record ")
    assert told[1].startswith(f"{page}:2: no record gives the figure 'quick/infx/size' (did you mean")
    assert told[2].startswith(f"{page}:2: \"a figure's mark without")
    assert told[3].startswith(f"{page}:2: '3 s' is read from no record")
    assert main([str(page)]) == 2
    page.write_text("<!-- figure quick/infix/size --> 9 s <!-- figure quick/infix/size -->1 KiB<!-- end -->\n")
    assert [shown for _, shown in unmarked(page.read_text("utf-8"))] == ["a figure's mark without <!-- end -->", "9 s"]
    page.write_text("<!-- figure quick/infix/size -->1 KiB<!-- end -->\n")
    assert main([str(page)]) == 0
    assert main(["--check", str(page)]) == 0


def test_a_record_that_is_not_there_is_named():
    with pytest.raises(DataError, match="no record gives the figure 'x/y'"):
        KEYS["x/y"]


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (formats.percent(0.857), "85.7 %"),
        (formats.points(-0.0004), "0.0"),
        (formats.points(-0.023), "−2.3"),
        (formats.points(0.0332), "+3.3"),
        (formats.size(465318), "454 KiB"),
        (formats.size(541643748), "517 MiB"),
        (formats.count(115200), "115 k"),
        (formats.count(11520), "11.5 k"),
        (formats.count(134515008), "135 M"),
        (formats.seconds(58.6), "59 s"),
        (formats.seconds(3.004), "3.0 s"),
        (formats.seconds(150), "2.5 min"),
        (formats.seconds(2034), "34 min"),
        (formats.times(45.4), "45"),
        (formats.times(2.84), "2.8"),
    ],
)
def test_how_values_are_written(shown, text):
    assert shown == text


def test_commands_of_a_page_run_in_one_folder_and_leave_a_record(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\npython -c 'print(1)'   # says it\nmake test\nsoftprompt train nothing.yaml --out runs/x\n```\n"
    )
    given = [str(page), "--folder", str(tmp_path / "reader"), "--out", str(tmp_path / "out")]
    assert commands.main(given) == 1
    record = json.loads((tmp_path / "out/page.json").read_text("utf-8"))
    first, second = record["commands"]
    assert first["command"] == "python -c 'print(1)'" and first["exit_code"] == 0
    assert second["exit_code"] == 2 and "nothing.yaml" in second["said"][-1]
    assert (tmp_path / "reader/tickets.csv").is_file() and (tmp_path / "reader/examples/movies.yaml").is_file()
    page.write_text("```sh\npython -c 'print(1)'\n```\n")
    capsys.readouterr()
    assert commands.main(given) == 0 and not capsys.readouterr().out


def test_a_command_of_several_lines_is_one():
    page = "```sh\nsoftprompt predict runs/x \\\n    --input new.csv   # all rows\nmake test\n```\n"
    assert commands.commands_of(page) == ["softprompt predict runs/x --input new.csv"]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("softprompt try tickets.csv --html ways.html", "try-tickets"),
        ("softprompt train examples/movies.yaml base=minilm --out runs/minilm", "train-minilm"),
        ("torchrun --nproc-per-node 2 -m softprompt train examples/movies.yaml --out runs/two", "train-two"),
    ],
)
def test_names_of_commands(command, name):
    assert name_of(command) == name


@pytest.mark.parametrize("contender", ["auto", "tfidf", "lora"])
def test_the_table_of_the_defaults_by_a_plain_reading_of_its_records(contender):
    lines = [line.split(" | ") for line in KEYS["defaults/table"].splitlines()]
    tasks = [name.strip(" |").replace(" ", "_") for name in lines[0][3:]]
    folder = ROOT / "benchmarks/results/defaults"
    seeds = [seed for seed in range(3) if (folder / f"trec/{contender}-{seed}.json").is_file()]
    means = []
    for task in tasks:
        runs = [json.loads((folder / f"{task}/{contender}-{seed}.json").read_text("utf-8")) for seed in seeds]
        means.append(100 * sum(run["accuracy"] for run in runs) / len(runs))
    shown = next(line for line in lines if TITLES.get(contender, f"`{contender}`") in line[0])
    assert shown[1] == str(len(seeds))
    values = [float(cell.strip(" |*").split(" ± ")[0]) for cell in shown[2:]]
    assert values == pytest.approx([sum(means) / len(means), *means], abs=0.051)


def test_figures_of_a_suite_by_a_plain_reading_of_its_runs():
    runs = [
        json.loads(path.read_text("utf-8")) for path in (ROOT / "benchmarks/results/quick/runs").glob("*infix*final*")
    ]
    assert len(runs) == 3
    assert (
        KEYS["quick/infix/accuracy"] == f"{100 * sum(run['tests']['movie-reviews']['value'] for run in runs) / 3:.1f} %"
    )
    assert KEYS["quick/infix/size"] == f"{sum(run['artifact_bytes'] for run in runs) / 3 / 1024:.0f} KiB"


@pytest.mark.parametrize("mode", picture.COLOURS)
def test_the_picture_shows_the_records_of_today(mode):
    shown = (ROOT / f"docs/pictures/ten-tasks-{mode}.svg").read_text("utf-8")
    told = "run python -m softprompt.benchmarks.figures.picture"
    assert picture.digest(picture.points(ROOT)) in shown, told
