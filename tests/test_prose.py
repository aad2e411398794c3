"""README, docs, docstrings and messages keep to sentences of a readable length, pages to a readable length."""

import prose
import pytest


@pytest.mark.parametrize("path", prose.PAGES, ids=lambda path: path.name)
def test_sentences_and_pages_are_short(path):
    page = prose.read(path)
    assert not page.faults(), "\n".join(page.faults())


def test_only_prose_is_counted():
    markdown = """\
# A heading that has quite a number of words

One [link](https://example.org/a/b.c). `softprompt train x.yaml` is one word!
<!-- a comment. Of two sentences. -->

| a | table of words. And more. |
| --- | --- |
| 1 | 2 |

```sh
code that nobody counts. Not at all.
```

- an item
- another, e.g. this (Lester et al. 2021). Then
  `names` follow.
"""
    counted = [(sentence.line, sentence.words) for sentence in prose.sentences(markdown)]
    assert counted == [(3, 2), (3, 4), (14, 2), (15, 7), (15, 3)]


def test_values_between_comments_are_read():
    (sentence,) = prose.sentences("It gets <!-- figure a.b -->78.4 %<!-- end --> right, i.e. most.")
    assert sentence.text == "It gets 78.4 % right, i.e most."


def test_faults_name_the_limit_and_the_line():
    long = prose.Sentence(7, " ".join(["word"] * 36))
    first, second, third = prose.Page("docs/a.md", 301, [long]).faults()
    assert first.startswith("docs/a.md:7: 36 words (limit 35): word word")
    assert second == "docs/a.md: 36.0 words a sentence on average (limit 20)"
    assert third == "docs/a.md: 301 lines (limit 300); split the page"
    assert not prose.Page("docs/a.md", 300, [prose.Sentence(1, " ".join(["word"] * 20))]).faults()


MODULE = '''\
"""What it does. And
why, e.g. so.

    import code
    code.is_not = "counted in a docstring"

file.json     its first file, of
              two lines
| table | of words |
"""


def verb(name):
    """Return it.

    Args:
        name: of whom
            or of what. Or none
        other: three words more

    Raises:
        KeyError: none has it.
    """
    names = "not a sentence".split()
    raise KeyError(f"no {name} here. " "Take one of: " + ", ".join(names))
'''


def test_docstrings_and_texts_of_a_module_are_read():
    counted = [(sentence.line, sentence.text) for sentence in prose.module_sentences(MODULE)]
    assert counted == [
        (1, "What it does."),
        (1, "And why, e.g so."),
        (7, "file.json its first file, of two lines"),
        (14, "Return it."),
        (17, "name: of whom or of what."),
        (18, "Or none"),
        (19, "other: three words more"),
        (22, "KeyError: none has it."),
        (25, "no X here."),
        (25, "Take one of:"),
    ]
