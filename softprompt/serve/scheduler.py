"""One thread that runs the model. What waits when it is free runs together, whichever artifacts it asks."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from ..answers import answer
from ..documents import DocumentCache
from ..surroundings import plain_torch
from .limits import Limits
from .request import Request, Timing, Writing, settle
from .writing import Writer

_log = logging.getLogger("softprompt.serve")


class Busy(Exception):
    """The queue is full."""


class Late(Exception):
    """A request whose time was over before it began."""


class Scheduler:
    """Requests in, outcomes out.

    A batch takes all that waits, in the order of arrival, up to `limits.batch` answers. While it runs, others gather for
    the next one. So nobody waits for a batch to fill, and the busier the server, the larger the batches.

    Texts that are written token by token join a running batch of their own. One token of all of them is written between
    two batches.

    Args:
        documents: texts that were read, for all requests.
        ran: called with the number of answers of each batch.
    """

    def __init__(
        self, documents: DocumentCache, limits: Limits, ran: Callable[[int], object] = lambda rows: None
    ) -> None:
        self.documents, self.limits, self._ran = documents, limits, ran
        self._waiting: deque[Request | Writing] = deque()
        self._change = threading.Condition()
        self._open: dict[int, Request | Writing] = {}  # all whose outcome is not known yet
        self._closed = False
        self._writer = Writer()
        self._thread = threading.Thread(target=self._run, name="softprompt scheduler", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Answers that wait."""
        with self._change:
            return self._count()

    @property
    def alive(self) -> bool:
        """What is submitted will be run."""
        return self._thread.is_alive()

    @property
    def writing(self) -> int:
        """Answers that are being written."""
        return self._writer.active

    def submit(self, request: Request | Writing) -> None:
        """Queue a request; its `outcome` is set later, by the scheduler's thread.

        Raises:
            Busy: the queue is full, or the scheduler is closed.
        """
        with self._change:
            full = self._count() + request.count > max(self.limits.queue, request.count)
            if isinstance(request, Writing):
                streams = self._writer.active + sum(isinstance(one, Writing) for one in self._waiting)
                full = full or streams >= self.limits.streams
            if self._closed or full:
                raise Busy
            self._waiting.append(request)
            self._open[key := id(request)] = request
            self._change.notify()
        # by its key: a callback that held the request would keep it, and so itself
        request.outcome.add_done_callback(lambda _: self._open.pop(key, None))

    def cancel(self, request: Request | Writing) -> None:
        """Nobody waits for it any more: it is not run, or its text not written to its end."""
        request.outcome.cancel()
        self._open.pop(id(request), None)  # a text under way gets no outcome any more
        if isinstance(request, Writing):
            self._writer.cancel(request.answer)

    def abandon(self, error: Callable[[], Exception]) -> None:
        """Take nothing new, and fail whatever waits or is under way; what runs now is thrown away when it ends."""
        with self._change:
            self._closed = True
            self._waiting.clear()
            self._change.notify()
        for request in list(self._open.values()):
            settle(request.outcome, error())
            self.cancel(request)

    def close(self, seconds: float) -> bool:
        """Take nothing new, and finish what waits; whether that was done in so many seconds."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _count(self) -> int:
        return sum(request.count for request in self._waiting)

    @plain_torch()
    def _run(self) -> None:
        while (batch := self._next()) is not None:
            try:
                self._turn(batch)
            except Exception as error:  # a fault of ours: what it concerns fails, and those that come next are answered
                _log.exception("a batch has failed")
                for request in batch:
                    settle(request.outcome, error)
                self._writer.fail(error)

    def _turn(self, batch: Sequence[Request | Writing]) -> None:
        """Run a batch, and write one token of all texts under way."""
        if asked := [request for request in batch if isinstance(request, Request)]:
            self._answer(asked)
        if begun := [request for request in batch if isinstance(request, Writing)]:
            self._write(begun)
        if self._writer.active:
            self._writer.step()

    def _next(self) -> list[Request | Writing] | None:
        """What runs next, nothing while texts are written and nobody waits; None at the end."""
        with self._change:
            while not self._waiting and not self._closed and not self._writer.active:
                self._change.wait()
            if not self._waiting and not self._writer.active:
                return None
            if self.limits.wait_ms and self._waiting and not self._closed and not self._writer.active:
                self._gather(time.monotonic() + self.limits.wait_ms / 1000)
            return self._take()

    def _gather(self, until: float) -> None:
        while self._count() < self.limits.batch and (left := until - time.monotonic()) > 0:
            self._change.wait(left)

    def _take(self) -> list[Request | Writing]:
        """The next batch, at least one request if any waits; those that nobody waits for any more are dropped."""
        batch: list[Request | Writing] = []
        rows = 0
        while self._waiting and (not batch or rows + self._waiting[0].count <= self.limits.batch):
            request = self._waiting.popleft()
            if not request.outcome.set_running_or_notify_cancel():
                continue
            if time.monotonic() > request.deadline:
                settle(request.outcome, Late())
                continue
            batch.append(request)
            rows += request.count
        return batch

    def _answer(self, batch: Sequence[Request]) -> None:
        """Run requests together; where that fails, each by itself, so that one does not fail the others."""
        began = time.monotonic()
        pairs = [pair for request in batch for pair in request.rows]
        rows, prompts = [row for row, _ in pairs], [prompt for _, prompt in pairs]
        try:
            behind = self.documents.behind_texts(rows, prompts)
            read = time.monotonic()
            left = iter(answer(rows, behind))
            answered = time.monotonic()
            outcomes = [request.together([next(left) for _ in request.rows]) for request in batch]
        except Exception as error:
            if len(batch) == 1:
                settle(batch[0].outcome, error)
                return
            for request in batch:
                self._answer([request])
            return
        self._ran(len(rows))
        for request, own in zip(batch, outcomes, strict=True):
            request.timing = Timing(began - request.arrived, read - began, answered - read)
            settle(request.outcome, own)

    def _write(self, batch: Sequence[Writing]) -> None:
        """Let texts join those that are being written."""
        answers = [request.answer for request in batch]
        try:
            behind = self.documents.behind_texts([one.example for one in answers], [one.prompt for one in answers])
        except Exception as error:
            for request in batch:
                settle(request.outcome, error)
            return
        for one, prompt in zip(answers, behind, strict=True):
            one.prompt = prompt
        self._writer.add(answers)
        self._ran(len(answers))
