"""An artifact's method on its base: made, filled and compared with what the manifest says of it."""

from __future__ import annotations

from ..artifact import Artifact, check_base
from ..base import Base
from ..errors import ArtifactError
from ..tasks import Task
from .base import Method, make_method
from .headed import with_head


def restored(held: Artifact, base: Base, task: Task | None = None) -> Method:
    """The method that an artifact holds, ready to serve.

    Args:
        task: whose answers it gives; None leaves a head out where the settings do not ask for one.

    Raises:
        ArtifactError: of another base; tensors that do not fit the method, the base or the task; a manifest that says something
            else of the method than it says of itself.
        ConfigError: settings that the method does not know.
    """
    check_base(held.manifest, base)
    method = make_method(held.manifest.method, str(held.path or "the artifact"))
    if task is not None:
        method = with_head(method, base, task)
    method.restore(held.tensors, base)
    check_restored(held, method, task)
    return method


def check_restored(held: Artifact, method: Method, task: Task | None) -> None:
    """Compare a method with the manifest that it came from, and with its task.

    Raises:
        ArtifactError: see `restored`.
    """
    where, layout = held.path or "the artifact", held.manifest.layout
    own = method.layout()
    # whether the template's one soft slot stands in front is not known of an artifact
    places = {own["place"], "front"} if method.learns_slots else {own["place"]}
    if (layout.stores, layout.length) != (own["stores"], own["length"]) or layout.place not in places:
        raise ArtifactError(
            f"{where}: the manifest says {layout.stores}/{layout.place}, {layout.length} learned tokens; its method "
            f"{method.spec.name!r} has {own['stores']}/{own['place']}, {own['length']}; the artifact was changed"
        )
    want = 2 if method.points else len(getattr(task, "words", ()))
    if task is not None and method.answers not in (None, want):
        raise ArtifactError(
            f"{where}: its classifier tells {method.answers} answers apart, its task has {want}; the artifact was changed"
        )
    if held.tensors and not method.may_be_zero and not any(bool(value.any()) for value in held.tensors.values()):
        raise ArtifactError(
            f"{where}: every number of its tensors is 0, which no training gives; copy the artifact again"
        )
