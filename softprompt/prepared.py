"""One way to bind a task, a base and a method: for training, serving, checking, pruning and distilling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .answers import AnswerForm, Prompt, find_form
from .artifact import Artifact, check_base, check_savable
from .base import Base
from .data import Row, refuse
from .engine import NOTHING, CacheConfig, Slot, make_engine, plan
from .errors import ArtifactError, ConfigError
from .methods import Headed, HeadShape, Method, make_method
from .storage import digest_of
from .tasks import BoundTask, Task
from .types import Example, Ids, digested
from .values import plain_row


@dataclass
class Prepared(Prompt):
    """Everything that a run needs, bound together; several runs may share one (and its encoded rows).

    Attributes:
        splits: examples by split, `train` without its demonstrations.
        digest: of all rows and how they are split.
    """

    splits: dict[str, list[Example]]
    digest: str


def prepare(
    base: Base,
    task: Task,
    method: Method,
    cache: CacheConfig | None = None,
    rows: dict[str, list[Row]] | None = None,
    reuse: Sequence[Prepared] = (),
    splits: Sequence[str] = ("train", "dev", "test"),
    seed: int | None = None,
) -> Prepared:
    """Draw demonstrations, bind task and method to the base, turn rows into examples.

    Args:
        cache: how encoded rows are kept.
        rows: splits that were loaded already (default: the task's own data).
        reuse: earlier runs. Encoded rows are used again from the first run with the same base and the same ids and K/V
            before the text. If plan and rows are the same, too, everything prepared is used again.
        splits: which of them become examples.
        seed: initialise what the method learns; None for a method that holds it already.

    Raises:
        ConfigError, DataError: see `Task.load_data`, `Method.segments`.
    """
    if rows is None:
        rows = task.load_data()
    task = task.settled()
    # they may be a caller's own
    rows = {name: [Row(plain_row(row.values), row.where, row.weight) for row in part] for name, part in rows.items()}
    refuse([(row.where, task.check_any(row.values)) for part in rows.values() for row in part])
    task, train_rows = task.draw_demonstrations(rows.get("train", []))
    prompt = bind(base, task, method, cache, reuse, seed)
    digest = digest_of({name: list(map(digested, part)) for name, part in rows.items()})
    near = next((other for other in reuse if prompt.engine.same(other.engine)), None)
    examples = None
    if near is not None:
        prompt.engine = near.engine
        there = all(name in near.splits for name in splits if name in rows)
        if there and (near.digest, near.task.spec, near.bound.room) == (digest, task.spec, prompt.bound.room):
            prompt.bound.cut, prompt.bound.tied = near.bound.cut, near.bound.tied
            examples = near.splits
    if examples is None:
        parts = {name: train_rows if name == "train" else rows[name] for name in splits if name in rows}
        examples = {name: prompt.form.encode_rows(part) for name, part in parts.items()}
    return Prepared(base, prompt.method, prompt.form, prompt.engine, examples, digest)


def bind(
    base: Base,
    task: Task,
    method: Method,
    cache: CacheConfig | None = None,
    reuse: Sequence[Prompt] = (),
    seed: int | None = None,
) -> Prompt:
    """A method on a task and a base, ready to be run.

    Args:
        cache, reuse, seed: see `prepare`.

    Raises:
        ConfigError: the base cannot do the task, or not with this method; names what would work. Or what the method learns
            cannot be saved.
    """
    task = task.settled()
    method = with_head(method, base, task)
    form = _form(base, task, method)
    bound = form.bound
    if seed is not None:
        method.attach(base, bound, seed)
        _refuse_unsavable(method, base)
    bound.reserve(method.positions)
    slots = method.segments(bound.slots, len(bound.cue))
    if form.reads_tokens and not base.bidirectional:
        _refuse_unseen(method, slots)
    # where layers do not run one by one, all of them run: the same, only slower
    first = method.first_layer if base.gated or not base.keeps_positions else 0
    how = plan(slots, first, base.bidirectional)
    start = method.learned() if how.first_layer else NOTHING
    engines = [other.engine for other in reuse]
    engine = make_engine(base, how, bound.prefix_ids, bound.cue, cache, engines, start, bound.tail, bound.question)
    return Prompt(base, method, form, engine)


def with_head(method: Method, base: Base, task: Task) -> Method:
    """The method with a head where it asks for one, the base has no words of its own, or only a head answers the task.

    Raises:
        ConfigError: a head is needed, and the settings exclude it; see `Method.settle`.
    """
    method.settle(base)
    if isinstance(method, Headed) or method.stores == "head":
        return method
    asked, needed = method.spec.head, find_form(task.form).needs_head
    if not base.has_words and asked is False:
        raise ConfigError(f"base {base.name!r} has no language-model head, so method.head cannot be false")
    if needed and asked is False:
        raise ConfigError(f"a task of type {task.spec.type!r} is answered by a head, so method.head cannot be false")
    if not (needed or not base.has_words if asked is None else asked):
        return method
    form = None if task.head_form is None else find_form(task.head_form)
    if form is None:
        return Headed(method, HeadShape(0), base.bidirectional)
    hidden = 0.0 if base.blank_id is None else form.word_dropout
    shape = HeadShape(
        form.head_size(task), form.reads_tokens, form.chained(task), form.rate, form.epochs, word_dropout=hidden
    )
    return Headed(method, shape, base.bidirectional)


def _form(base: Base, task: Task, method: Method) -> AnswerForm[Any]:
    """The form in which the task's rows are answered here, bound to the base's tokenizer.

    Raises:
        ConfigError: what does not go together.
    """
    headed = isinstance(method, Headed)
    name = task.head_form if headed else task.form
    form = find_form(name or task.form)
    form.check(base, task)
    if name is None:
        raise ConfigError(
            f"task {task.name!r} is of type {task.spec.type!r}, which a head cannot answer. A head classifies, gives sets of "
            "labels, points at spans or tags words; use type classification, or a causal base such as smollm2"
        )
    if form.needs_head and not headed and (form.reads_tokens or method.stores != "head"):
        raise ConfigError(
            f"method {method.spec.name!r} answers from one state a row, but a task of type {task.spec.type!r} needs a head "
            "that reads each token; use hard, prefix, lora or full"
        )
    if task.spec.template.end and base.answers_at_end:
        raise ConfigError(
            f"template.end is {task.spec.template.end[:40]!r}, but base {base.name!r} ({base.kind}) answers at the end of the "
            "text; leave it out, or use a masked base"
        )
    if base.bidirectional and base.has_words and base.mask_id is None and not headed:
        raise ConfigError(f"base {base.name!r} has no mask token to answer at; set method.head: true")
    reader = base.reader
    bound = BoundTask(
        task,
        base.tokenizer,
        reader.max_positions,
        instruction=method.keeps_instruction,
        soft=method.learns_slots,
        closing=reader.bidirectional,
        writes=base.max_positions - len(base.start_ids) if base.has_decoder else None,
        base_ends=ends_of(base),
    )
    bound.learns = method.stores != "none"
    return form(bound, headed)


def _refuse_unsavable(method: Method, base: Base) -> None:
    """
    Raises:
        ConfigError: the artifact's manifest could not say what this method stores, and where it stands.
    """
    layout, kind = method.layout(), type(method)
    # weights may be those of a whole model: too much to be copied for a look, and their names are free
    tensors = method.export() if layout.get("stores") in ("embeddings", "kv", "none") else {}
    check_savable(layout, tensors, base, f"method {method.spec.name!r} ({kind.__module__}.{kind.__qualname__})")


def _refuse_unseen(method: Method, slots: Sequence[Slot]) -> None:
    """
    Raises:
        ConfigError: on a base that reads forwards something is learned behind the text, whose tokens a head reads.
    """
    stop = 1 + max(index for index, slot in enumerate(slots) if slot.name == "text")
    before, behind = slots[:stop], slots[stop:]
    acts_behind = any(slot.adapted for slot in behind) and not any(slot.adapted for slot in before)
    if acts_behind or any(slot.learned for slot in behind):
        raise ConfigError(
            f"method {method.spec.name!r} learns behind the text, so a head that reads the text's tokens sees nothing of it; "
            "use soft, prefix, full or lora (without activate: cue)"
        )


def ends_of(base: Base) -> Ids:
    """Tokens that the base's `generation_config` says end a text (Llama 3 and Gemma name several)."""
    named = getattr(getattr(base.model, "generation_config", None), "eos_token_id", None)
    some = named if isinstance(named, (list, tuple)) else [named]
    return tuple(token for token in some if isinstance(token, int) and 0 <= token < base.shape.vocab_size)


def restored(artifact: Artifact, base: Base, task: Task | None = None) -> Method:
    """The method that an artifact holds, ready to serve.

    Args:
        task: whose answers it gives; None leaves a head out where the settings do not ask for one.

    Raises:
        ArtifactError: an artifact of another base; tensors that do not fit the method, the base or the task; a manifest
            that contradicts its method.
        ConfigError: settings that the method does not know.
    """
    check_base(artifact.manifest, base)
    method = make_method(artifact.manifest.method, str(artifact.path or "the artifact"))
    if task is not None:
        method = with_head(method, base, task)
    method.restore(artifact.tensors, base)
    check_restored(artifact, method, task)
    return method


def check_restored(artifact: Artifact, method: Method, task: Task | None) -> None:
    """Compare a method with the manifest that it came from, and with its task.

    Raises:
        ArtifactError: see `restored`.
    """
    where, layout = artifact.path or "the artifact", artifact.manifest.layout
    own = method.layout()
    # whether the template's one soft slot stands in front is not known of an artifact
    places = {own["place"], "front"} if method.learns_slots else {own["place"]}
    if (layout.stores, layout.length) != (own["stores"], own["length"]) or layout.place not in places:
        raise ArtifactError(
            f"{where}: the manifest says {layout.stores}/{layout.place}, {layout.length} learned tokens; its method "
            f"{method.spec.name!r} has {own['stores']}/{own['place']}, {own['length']}; the artifact was changed"
        )
    if task is not None and method.answers is not None:
        form = find_form((task.head_form if isinstance(method, Headed) else None) or task.form)
        want = form.head_size(task)
        if method.answers != want:
            raise ArtifactError(
                f"{where}: its classifier has {method.answers} answers, its task has {want}; the artifact was changed"
            )
    if artifact.tensors and not method.may_be_zero and not any(bool(one.any()) for one in artifact.tensors.values()):
        raise ArtifactError(
            f"{where}: every number of its tensors is 0, which training never gives; copy the artifact again"
        )
