"""Figures in README and docs, each read from a committed record.

A figure stands between two comments, which a reader of the page does not see:

    the prompt gets <!-- figure quick/infix/accuracy -->85.7 %<!-- end --> right

`python -m softprompt.benchmarks.figures` writes every figure anew from its record; `--keys` lists what can be asked for. With
`--check` it changes nothing. It says with file and line which figure differs from its record, has none, or has no mark.
A test does the check. Settings and limits are no measurements: they stand in backticks.
"""
