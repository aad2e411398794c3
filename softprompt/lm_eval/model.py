"""`SoftpromptLM`: what lm-evaluation-harness asks of a model, answered by our engine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lm_eval.models  # noqa: F401 - the harness registers its own models only where no other was registered before
import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from ..answers.generated import seed_of
from ..base import Base
from ..engine import text_of
from ..errors import ConfigError, DataError
from ..prepared import ends_of
from ..types import Example, Ids
from .learned import learned_of
from .settings import Writing, writing
from .texts import Texts

Value = TypeVar("Value")


@register_model("softprompt")
class SoftpromptLM(TemplateLM):
    """A causal base, alone or with what an artifact learned.

    The harness's prompts are taken as they are: of an artifact only what was learned acts, not its template. So a soft prompt,
    prefix or LoRA gives what PEFT gives with the same folder under the harness's own `hf` model. An infix stands before the
    last tokens of the context, as it stood before those of its template's cue.

    Args:
        base: a bundled name, a folder, a hub id, or a base that is loaded.
        artifact: its folder, or that of the run that made it; None: the bare base.
        dtype, device, quantization: see `Base.load`; of no meaning for a loaded base.
        batch_size: contexts that run together at most, or `auto`: as many as make a good forward.
        max_batch_size: the same, where batch_size is `auto`.
        max_length: tokens of a request that are read at most; None: as many as the base has room for beside the prompt.

    Attributes:
        tokenizer: the base's.

    Raises:
        ConfigError: the artifact gives texts no likelihood (an ensemble, a classifier of its own), or learned nothing.
        BaseModelError, ArtifactError: see `Base.load`, `load`.
    """

    def __init__(
        self,
        base: str | Base = "smollm2",
        artifact: str | Path | None = None,
        dtype: str = "fp32",
        device: str | None = None,
        quantization: str | None = None,
        batch_size: int | str = "auto",
        max_batch_size: int | None = None,
        max_length: int | None = None,
    ) -> None:
        super().__init__()
        most = _batch_size(batch_size, max_batch_size)
        if not isinstance(base, Base):
            base = Base.load(str(base), dtype, _device(device), quantization=quantization)
        self.base = base
        self.artifact = artifact
        method, cue = learned_of(self.base, artifact)
        self.method = method
        self.texts = Texts(self.base, method, cue, most)
        self.tokenizer = self.base.tokenizer
        self._device = self.base.device
        if max_length is not None and not 1 <= max_length <= self.texts.limit:
            raise ConfigError(
                f"max_length is {max_length}; base {self.base.name!r} reads up to {self.texts.limit} tokens here, so use 1 to "
                f"{self.texts.limit}"
            )
        self.max_length: int = max_length or self.texts.limit

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What a text without a context stands behind: the token that begins texts, else the one that ends them.

        Raises:
            ConfigError: the tokenizer has neither.
        """
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        raise ConfigError(
            f"the tokenizer of base {self.base.name!r} has no token that begins or ends a text, behind which a text without a "
            "context could be read; use tasks with contexts"
        )

    @property
    def max_gen_toks(self) -> int:
        """Tokens that are written where a task names no limit."""
        return 256

    @property
    def tokenizer_name(self) -> str:
        """What the harness keeps its requests under: another tokenizer or chat template has another name."""
        return f"{Path(self.base.name).name}-{self.base.tokenizer_digest[:16]}"

    def get_model_info(self) -> dict[str, Any]:
        """What the harness's results say of the model, beside its arguments."""
        return {
            "base": self.base.name,
            "base_digest": self.base.digest,
            "method": None if self.artifact is None else self.method.spec.model_dump(mode="json", exclude_none=True),
        }

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids of a text, with the tokenizer's own first and last tokens unless it begins with them."""
        if add_special_tokens is None:
            first = self.tokenizer.decode([self.prefix_token_id])
            add_special_tokens = not (first and string.startswith(first))
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether greedy decoding would write it."""
        pairs = [self._fitted(*request) for request in requests]
        found = ((place, (one.value, one.greedy)) for place, one in self.texts.likelihoods(pairs))

        def keep(place: int, value: tuple[float, bool]) -> None:
            self.cache_hook.add_partial("loglikelihood", requests[place][0], value)

        return self._in_order(found, len(pairs), keep, "Scoring continuations", disable_tqdm)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, in windows of `max_length` tokens; each token counts once."""
        pairs: list[tuple[Ids, Ids]] = []
        owners: list[int] = []
        for place, request in enumerate(requests):
            windows = get_rolling_token_windows(
                self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length, context_len=1
            )
            for window in map(make_disjoint_window, windows):
                pairs.append((tuple(window[0]), tuple(window[1])))
                owners.append(place)
        found = ((place, one.value) for place, one in self.texts.likelihoods(pairs))
        values = self._in_order(found, len(pairs), None, "Scoring windows", disable_tqdm)
        sums = [0.0] * len(requests)
        for owner, value in zip(owners, values, strict=True):
            sums[owner] += value
        for request, value in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, value)
        return sums

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What is written behind each context, up to the first of its `until` texts or `max_gen_toks` tokens."""
        alike: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            alike.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(place)
        # the harness's --seed is the process's; a context that is asked again draws anew
        seeds, asked = [], Counter[str]()
        for request in requests:
            seeds.append(torch.initial_seed() + asked[request.args[0]])
            asked[request.args[0]] += 1

        def found() -> Iterator[tuple[int, str]]:
            for places in alike.values():
                how = writing(requests[places[0]].args[1], self.max_gen_toks, self.tokenizer, ends_of(self.base))
                contexts = [self._context(requests[place].args[0], how) for place in places]
                own = [
                    seed_of(seeds[place], Example(ids, (), None, "", {}))
                    for place, ids in zip(places, contexts, strict=True)
                ]
                for index, answer in self.texts.written(contexts, how.settings, how.ends, how.stops, own):
                    yield places[index], how.cut(text_of(self.tokenizer, answer.ids))

        def keep(place: int, value: str) -> None:
            self.cache_hook.add_partial("generate_until", requests[place].args, value)

        return self._in_order(found(), len(requests), keep, "Writing", disable_tqdm)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the base's chat template writes it.

        Raises:
            ConfigError: the base has none.
        """
        if not self.tokenizer.chat_template:
            raise ConfigError(f"base {self.base.name!r} has no chat template; leave out --apply_chat_template")
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def _fitted(self, texts: tuple[str, str] | None, context: list[int], continuation: list[int]) -> tuple[Ids, Ids]:
        """A request without the beginning of its context that there is no room for.

        Raises:
            DataError: the continuation is empty, or has no room itself.
        """
        shown = repr(texts[1][:60]) if texts else "a window"
        if not continuation:
            raise DataError(f"the continuation {shown} has no tokens; remove it from the task's choices")
        if len(continuation) > self.max_length:
            raise DataError(
                f"the continuation {shown} has {len(continuation)} tokens, there is room for {self.max_length}; shorten it, or "
                "use another base"
            )
        room = self.max_length + 1 - len(continuation)  # a continuation's last token does not run
        return tuple(context[-room:]), tuple(continuation)

    def _context(self, text: str, how: Writing) -> Ids:
        """The end of a context that leaves room for what is written.

        Raises:
            ConfigError: there is no room for a context.
        """
        limit = how.settings["max_new_tokens"]
        if limit >= self.max_length:
            raise ConfigError(
                f"max_gen_toks is {limit}, but there is room for {self.max_length} tokens, context included; lower it with "
                "--gen_kwargs max_gen_toks=…"
            )
        ids = self.tok_encode(text) or [self.prefix_token_id]
        return tuple(ids[limit - self.max_length :])

    def _in_order(
        self, found: Iterable[tuple[int, Value]], count: int, keep: Any, what: str, quiet: bool
    ) -> list[Value]:
        """Values in the order of their requests; each is kept by the harness's cache as soon as it is known."""
        values: dict[int, Value] = {}
        with tqdm(total=count, desc=what, disable=quiet) as bar:
            for place, value in found:
                values[place] = value
                if keep is not None:
                    keep(place, value)
                bar.update(1)
        return [values[place] for place in range(count)]


def _device(asked: str | None) -> str:
    """Where a base is loaded; the harness's command line says `cuda:0` on any machine where its user says nothing."""
    return "auto" if asked is None or (asked == "cuda:0" and not torch.cuda.is_available()) else asked


def _batch_size(asked: int | str, most: int | None) -> int | None:
    """How many contexts run together at most; None: no limit of the user's.

    Raises:
        ConfigError: no positive number, nor `auto`.
    """
    if str(asked).startswith("auto"):
        return most
    if not str(asked).isdigit() or int(asked) < 1:
        raise ConfigError(f"batch_size is {asked!r}; use a number from 1 on, or auto")
    return int(asked)
