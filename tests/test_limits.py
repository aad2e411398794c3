"""Templates of strangers: whatever one asks for is refused in one line, before it takes the time or the memory."""

from __future__ import annotations

import threading
import time
import tracemalloc

import pytest

from softprompt.config import parse
from softprompt.errors import ConfigError, DataError
from softprompt.template import TemplateSpec, render
from softprompt.template.limits import size_of

LOOP = "{% for i in range(99999) %}"
AT_LOAD = {
    "long source": "{{ text }}" + "a" * 17_000,
    "macro": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}{{ text }}",
    "call": "{% call text() %}{% endcall %}{{ text }}",
    "block": "{% block a %}{{ self.a() }}{% endblock %}{{ text }}",
    "include": "{% include 'x' %}{{ text }}",
    "import": "{% import 'x' as y %}{{ text }}",
    "extends": "{% extends text %}",
    "recursive loop": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}{{ text }}",
    "parentheses": "{{ " + "(" * 3000 + "text" + ")" * 3000 + " }}",
    "brackets": "{{ " + "[" * 3000 + "text" + "]" * 3000 + " }}",
    "negations": "{{ " + "not " * 3000 + "text }}",
    "minus": "{{ " + "-" * 3000 + "1 }}{{ text }}",
    "filters": "{{ text" + "|trim" * 2000 + " }}",
    "attributes": "{{ text" + ".a" * 2000 + " }}",
    "calls": "{{ text" + "()" * 2000 + " }}",
    "sums": "{{ text" + "+1" * 2000 + " }}",
    "loops in each other": "{% for a in [1] %}" * 25 + "{{ text }}" + "{% endfor %}" * 25,
    "conditions in each other": "{% if text %}" * 90 + "{{ text }}" + "{% endif %}" * 90,
    "many more parts": "{{ text" + " ~ 'a'" * 100_000 + " }}",
    "unknown filter": "{{ text | lorem }}",
    "unknown test": "{{ text is lorem }}",
    "lipsum": "{{ lipsum(n=99999) }}{{ text }}",
    "cycler": "{{ cycler('a', 'b').next() }}{{ text }}",
    "joiner": "{{ joiner('x' * 9)() }}{{ text }}",
    "random": "{{ range(1000) | random }}{{ text }}",
    "padding": "{{ text | center(10**9) }}",
    "indent": "{{ text | indent(10**9) }}",
    "format": "{{ '%999999999d' | format(1) }}{{ text }}",
    "urlize": "{{ text | urlize(rel='a' * 9999) }}",
    "pprint": "{{ text | pprint }}",
    "braces": "{{" * 8000,
    "statements": "{%" * 8000,
    "comments": "{#" * 8000,
    "quotes": "{{ " + "'" * 8001,
    "mixed": "{{ text }}{% if %}",
    "slots": "{{ text }}" + "{{ soft(1) }}" * 2000,
    "slot of parentheses": "{{ soft(" + "(" * 2000 + "1" + ")" * 2000 + ") }}{{ text }}",
}
GROWING = {
    "loops": f"{LOOP}{LOOP}{{% endfor %}}{{% endfor %}}{{{{ text }}}}",
    "output": f"{LOOP}{LOOP}{{{{ text }}}}aaaaaaaaaaaaaaaa{{% endfor %}}{{% endfor %}}",
    "fixed output": LOOP + "a" * 9999 + "{% endfor %}{{ text }}",
    "output into a variable": f"{{% set x %}}{LOOP}{LOOP}aaaaaaaa{{{{ text }}}}{{% endfor %}}{{% endfor %}}{{% endset %}}",
    "output through a filter": f"{{% filter upper %}}{LOOP}aaaaaaaa{{{{ text }}}}{{% endfor %}}{{% endfilter %}}",
    "range": "{% for i in range(10**9) %}x{% endfor %}{{ text }}",
    "ranges of ranges": "{{ range(99999)|map('string')|map('list')|list }}{{ text }}",
    "text doubled": '{% set a = text ~ "aaaaaaaa" %}' + "{% set a = a ~ a %}" * 40 + "{{ a }}",
    "text added": '{% set a = text ~ "aaaaaaaa" %}' + "{% set a = a + a %}" * 40 + "{{ a }}",
    "constants doubled": "{{ " + "|replace('a', 'aaaaaaaa')".join(["'aaaaaaaa'", *[""] * 12]) + " }}{{ text }}",
    "text times": "{{ 'a' * 10**9 }}{{ text }}",
    "times text": "{{ 10**9 * 'a' }}{{ text }}",
    "list times": "{{ ([1] * 10**9)|length }}{{ text }}",
    "tuple times": "{{ ((1, 2) * 10**9)|length }}{{ text }}",
    "list doubled": "{% set a = [1] %}" + "{% set a = a + a %}" * 40 + "{{ a|length }}{{ text }}",
    "lists in lists": "{% set a = ['aaaa'] %}" + "{% set a = [a, a] %}" * 40 + "{{ a|string }}{{ text }}",
    "tuples in tuples": "{% set a = ('a',) %}" + "{% set a = (a, a) %}" * 40 + "{{ {a: 1} }}{{ text }}",
    "mappings in mappings": "{% set a = {} %}" + "{% set a = {1: a, 2: a} %}" * 40 + "{{ a|tojson }}{{ text }}",
    "compared": "{% set a = [1] %}{% set b = [1] %}"
    + "{% set a = [a, a] %}{% set b = [b, b] %}" * 40
    + "{{ a == b }}{{ text }}",
    "dict of dict": "{% set a = dict() %}" + "{% set a = dict(x=a, y=a) %}" * 40 + "{{ a|string }}{{ text }}",
    "replace method": "{{ ('a' * 99999).replace('a', 'a' * 99999) }}{{ text }}",
    "replace nothing": "{{ ('a' * 9999).replace('', 'a' * 9999) }}{{ text }}",
    "replace filter": "{{ ('a' * 99999)|replace('a', 'a' * 99999) }}{{ text }}",
    "join method": "{% set s = 'x' * 99999 %}{{ s.join(s) }}{{ text }}",
    "join filter": "{% set s = 'x' * 9999 %}{{ s|join(s) }}{{ text }}",
    "join of a range": "{{ range(99999)|join('x' * 9999) }}{{ text }}",
    "lazily large": "{% set s = 'x' * 50000 %}{{ range(9999)|map('replace', '1', s)|map('upper')|list|length }}{{ text }}",
    "lazily default": "{% set s = 'x' * 50000 %}{{ [1] * 999|map('default', s)|map('lower')|list|length }}{{ text }}",
    "batch": "{{ text|batch(10**9, 'x')|list|length }}",
    "slice": "{{ text|slice(10**9)|list|length }}",
    "wordwrap": "{{ ('a ' * 40000)|wordwrap(10, wrapstring='x' * 9999) }}{{ text }}",
    "wordwrap narrow": "{{ ('a' * 99999)|wordwrap(1) }}{{ text }}",
    "tojson": "{{ range(9)|list|tojson(indent=10**9) }}{{ text }}",
    "round": "{{ 1.5|round(10**9, 'ceil') }}{{ text }}",
    "truncate": "{{ text|truncate(1, True, 'x' * 99999) }}",
    "sum of lists": "{{ ([[1] * 99] * 999)|sum(start=[])|length }}{{ text }}",
    "striptags": "{{ ('<b>' * 33000)|striptags }}{{ text }}",
    "squares": "{% set n = namespace(a=10**100) %}{% for i in range(40) %}{% set n.a = n.a * n.a %}{% endfor %}{{ text }}",
    "powers": "{{ 10**99999 }}{{ text }}",
    "powers of powers": "{{ (10**(10**9)) }}{{ text }}",
    "negative power": "{{ 10**(-10**9) * 1 }}{{ (9**999)**999 }}{{ text }}",
    "digits": "{{ ('9' * 99999)|int + 1 }}{{ ('9' * 4000)|int * ('9' * 4000)|int }}{{ text }}",
    "to_bytes": "{{ (5).to_bytes(10**10, 'big') }}{{ text }}",
    "center": "{{ text.center(10**7) }}",
    "ljust": "{{ text.ljust(10**9) }}",
    "zfill": "{{ text.zfill(10**7) }}",
    "expandtabs": "{{ '\\t'.expandtabs(10**9) }}{{ text }}",
    "translate": "{{ text.translate({97: 'a' * 9999}) }}{{ text.encode('utf-32') }}",
    "percent": "{{ '%10000000d' % 1 }}{{ text }}",
    "str.format": "{{ '{:10000000}'.format(1) }}{{ text }}",
    "format_map": "{{ '{a:10000000}'.format_map({'a': 1}) }}{{ text }}",
    "format by name": "{{ [text]|map('attr', 'format')|list }}{{ text }}",
    "format fetched": "{{ text['format'](1) }}",
    "functions by another name": "{% set a = [lipsum] %}{{ a[0](9999) }}{{ text }}",
    "slices kept": "{% set s = 'x' * 99999 %}{% set n = namespace(a=[]) %}"
    + "{% for i in range(9999) %}{% set n.a = n.a + [s[i:]] %}{% endfor %}{{ text }}",
    "list grows by one": "{% set n = namespace(a=[]) %}{% for i in range(99999) %}{% set n.a = n.a + [i] %}{% endfor %}",
    "sorted again": "{% set a = range(9999)|list %}{% for i in range(9999) %}{% set b = a|sort %}{% endfor %}{{ text }}",
    "split again": "{% set s = 'x ' * 40000 %}{% for i in range(9999) %}{% set b = s.split() %}{% endfor %}{{ text }}",
    "sought again": "{% set s = 'x' * 99999 %}{% for i in range(99999) %}{% if (s ~ 'y') in s %}{% endif %}{% endfor %}",
    "divided by nothing": "{{ 1 // 0 }}{{ text }}",
    "null": "{{ none }}{{ text }}",
    "a list": "{{ text.split() }}",
    "a function": "{{ range }}{{ text }}",
    "a namespace": "{{ namespace(a=1) }}{{ text }}",
    "a loop": "{% for a in [1] %}{{ loop }}{% endfor %}{{ text }}",
    "the template": "{{ self }}{{ text }}",
    "a generator": "{{ text | map('upper') }}",
    "a generator as text": "{{ text | map('upper') | string }}",
    "a function as text": "{{ range | string }}{{ text ~ range }}",
    "null in a variable": "{% set a = none %}{{ a | trim }}{{ text }}",
    "null in a list": "{{ [text, none] | join }}",
    "null behind a point": "{% set a = {'b': none} %}{{ text ~ a.b }}",
    "a list replaced": "{{ [text] | replace('a', 'b') }}",
    "a loop joined": "{% for a in [1] %}{{ [loop, text] | join }}{% endfor %}",
}


def refused_soon(run, error):
    """One line, within 1.2 s of CPU time: another's work on the machine is not the template's."""
    started = time.thread_time()
    with pytest.raises(error) as caught:
        run()
    assert time.thread_time() - started < 1.2
    said = str(caught.value)
    assert said.isprintable() and len(said) < 400, said


@pytest.mark.parametrize("name", AT_LOAD)
def test_what_can_be_seen_is_refused_at_load(name):
    refused_soon(lambda: parse(TemplateSpec, {"input": AT_LOAD[name]}, "task.yaml"), ConfigError)


@pytest.mark.parametrize("name", GROWING)
def test_what_grows_is_refused_at_the_first_row(name):
    parse(TemplateSpec, {"input": "{{ text }}" + GROWING[name]}, "task.yaml")
    refused_soon(lambda: render(GROWING[name], {"text": "a row"}, "row:1"), DataError)


@pytest.mark.parametrize(
    "name", ["output into a variable", "lazily large", "replace method", "lists in lists", "join method"]
)
def test_what_grows_is_refused_before_it_is_there(name):
    tracemalloc.start()
    with pytest.raises(DataError):
        render(GROWING[name], {"text": "a row"}, "row:1")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6


def test_limits_go_with_the_row_and_with_the_base():
    long = "word " * 100_000  # half a million characters that the base cuts
    assert render("Text: {{ text | trim }}\n", {"text": long}, "row") == f"Text: {long.strip()}\n"
    with pytest.raises(DataError, match="more than"):
        render("{{ text }}" + "{{ 'a' * 900 }}" * 3, {"text": "x"}, "row", most=2000)
    assert render("{{ text }}{{ 'a' * 900 }}", {"text": "x"}, "row", most=2000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{% for w in text.split() %}{{ loop.index }}{{ w }} {% endfor %}", "1a 2b "),
        (
            "{% for w in text.split() %}{{ w.upper() ~ w.replace('b', 'c') }}{% if w.count('a') %}-{% endif %}{% endfor %}",
            "Aa-Bc",
        ),
        ("{{ text | truncate(3) }}", "a b"),
        ("{{ text[:1] ~ text[-1] }}", "ab"),
        ("{% if text %}{{ text | replace('a', 'c') | upper }}{% endif %}", "C B"),
        ("{{ [text, 'x'] | join('-') }}", "a b-x"),
        ("{{ rows | join(',', attribute='n') }}", "1,2"),
        ("{% for row in rows if row.n > 1 %}{{ row.n }}{% else %}none{% endfor %}", "2"),
        ("{% for key, value in rows[0].items() %}{{ key }}{{ value }}{% endfor %}", "n1"),
        ("{% set ns = namespace(x=0) %}{% for r in rows %}{% set ns.x = ns.x + r.n %}{% endfor %}{{ ns.x }}", "3"),
        ("{% filter upper %}{{ text }}{% endfilter %}{% set x %}q{% endset %}{{ x }}", "A Bq"),
        ("{{ rows | map(attribute='n') | sum }} {{ rows | length }}", "3 2"),
        ("{{ 1.25 | round(1) }} {{ 7 // 2 }} {{ 2 ** 10 }} {{ 'ab' * 2 }}", "1.2 3 1024 abab"),
        ("{{ {'x': [text]} | tojson }}", '{"x": ["a b"]}'),
        ("{{ {'好': ['<&']} | tojson }}{{ text }}", '{"好": ["<&"]}a b'),
        ("{{ text.replace('a', 'b').join(['(', ')']) }}", "(b b)"),
        ("{{ text | batch(2) | map('join') | join('/') }}", "a /b"),
        ("{{ more | default('no') }}{{ text is defined }}", "noTrue"),
    ],
)
def test_what_templates_do_is_what_it_was(text, expected):
    assert render(text, {"text": "a b", "rows": [{"n": 1}, {"n": 2}]}, "row") == expected


def test_artifacts_of_format_1_write_lists_as_they_did():
    assert render("{{ text }}", {"text": ["a"]}, "row", plain=False) == "['a']"
    assert render("{{ text | tojson }}", {"text": ["好"]}, "row", plain=False) == r'["\u597d"]'


def test_threads_do_not_share_what_they_may_use():
    problems = []

    def work():
        try:
            for _ in range(200):
                assert (
                    render("{% for w in text.split() %}{{ w }}{% endfor %}", {"text": "a b " * 50}, "row") == "ab" * 50
                )
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not problems


def test_sizes_count_what_stands_there():
    assert size_of("abc", 10) == 3 and size_of(["abc"], 100) == 5
    twice = ["a"]
    for _ in range(60):
        twice = [twice, twice]
    assert size_of(twice, 1000) > 1000
