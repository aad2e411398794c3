"""Every architecture of transformers is exact here, or refused by a line that names the cause; docs/models.md says which."""

from __future__ import annotations

import pytest
import zoo_docs
from zoo import judge
from zoo_models import MAPPINGS, types

# the most used: a verdict of these changes only with its line in docs/models.md
COMMON = {
    "causal": "llama qwen2 qwen3 qwen3_moe mistral mixtral gemma2 gemma3_text phi3 gpt2 gpt_neox gpt_oss olmo2 smollm3 glm4 "
    "cohere2 deepseek_v3",
    "masked": "bert roberta distilbert modernbert deberta-v2",
    "seq2seq": "t5 bart mt5",
}
PAIRS = [(kind, name) for kind, names in COMMON.items() for name in names.split()]
REST = [(kind, name) for kind in MAPPINGS for name in types(kind) if (kind, name) not in PAIRS]
SAID = zoo_docs.written()


def ids(pairs):
    return [f"{kind}-{name}" for kind, name in pairs]


@pytest.mark.parametrize(("kind", "name"), PAIRS, ids=ids(PAIRS))
def test_the_most_used_types(kind, name):
    record = judge(kind, name)
    assert record.verdict in ("exact", "refused"), record.line()
    assert record.entry == SAID[kind, name], "docs/models.md is not current: python tests/zoo.py --docs"


@pytest.mark.full
@pytest.mark.parametrize(("kind", "name"), REST, ids=ids(REST))
def test_all_other_types(kind, name):
    """Also those of a newer transformers, which the page does not have yet."""
    record = judge(kind, name)
    assert record.verdict in ("exact", "refused", "not built"), record.line()


def test_the_page_has_every_verdict_it_may_have_and_no_other():
    verdicts = {verdict for verdict, _ in SAID.values()}
    assert verdicts <= {"exact", "exact, but", "refused", "not built"}
    assert sum(verdict == "exact" for (kind, _), (verdict, _) in SAID.items() if kind == "causal") >= 75
