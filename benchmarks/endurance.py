"""What a server grows by: requests from many threads while artifacts are loaded, replaced and removed. Every answer is checked.

    python -m softprompt.benchmarks.endurance --out benchmarks/results/serving

A tiny random Llama with SmolLM2's tokenizer answers over HTTP, in one process with its clients. What a request leaves behind
does not depend on the size of the base. An answer is wrong if it differs by 1e-5 from what the artifact, or one that its name
stood for while the request was under way, says alone.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import json
import os
import random
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from softprompt.base import Base
from softprompt.base.bundled import get
from softprompt.benchmarks import provenance
from softprompt.benchmarks.serving import Served
from softprompt.data import Row
from softprompt.documents import DocumentCache
from softprompt.runtime import Runtime
from softprompt.serve.service import Service
from softprompt.storage import write_json
from softprompt.tasks import Task
from softprompt.training import train

ARTIFACTS, THREADS, TEXTS, NAMES_PER_TEXT = 64, 8, 500, 8
ADMIN = "admin"
FAR = 1e-5  # between probabilities


@dataclass
class Version:
    """What a name stood for, from one time to another (`time.monotonic`)."""

    content: int
    since: float
    until: float = float("inf")


@dataclass
class Names:
    """Which contents stood under which names, and when. Artifacts beyond the first ones come and go."""

    versions: dict[str, list[Version]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, name: str, content: int) -> None:
        """From now on a content may answer; the one before may until `end`."""
        with self.lock:
            self.versions.setdefault(name, []).append(Version(content, time.monotonic()))

    def end(self, name: str, last: bool = False) -> None:
        """From now on only the newest may answer, or none."""
        with self.lock:
            for version in self.versions[name] if last else self.versions[name][:-1]:
                version.until = min(version.until, time.monotonic())

    def possible(self, name: str, since: float, until: float) -> set[int]:
        """Contents that may have answered within a time."""
        with self.lock:
            return {one.content for one in self.versions.get(name, []) if one.since <= until and one.until >= since}


def tiny_base() -> Base:
    """A random Llama of 1.6 million weights."""
    tokenizer = AutoTokenizer.from_pretrained(get("smollm2"))
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 512,
    }
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, **heads))
    for weight in model.parameters():
        weight.data.mul_(4.0)  # far from uniform answers
    return Base(model, tokenizer, "tiny")


def artifacts(base: Base, folder: Path) -> list[Path]:
    """Prompts of one step each, no two alike."""
    rows = [Row({"text": f"Number {place}.", "label": "yes" if place % 2 else "no"}, f"{place}") for place in range(8)]
    template = {"input": "Text: {{ text }}", "cue": "\nAnswer:"}
    words = {"yes": "yes", "no": "no"}
    task = Task.load({"name": "mood", "type": "classification", "verbalizer": words, "template": template})
    folders = [folder / f"{place}" for place in range(ARTIFACTS)]
    for place, path in enumerate(folders):
        method = ("infix", "soft")[place % 2]
        how = {"max_steps": 1, "epochs": 1, "lr": 0.5}
        train(base, task, method, path, train=how, rows={"train": rows, "dev": []}, seed=place, check=False)
    return folders


def text_of(place: int) -> str:
    """A text of its own, every tenth longer than those that the server does not keep."""
    return f"Film {place} was shown in a small town" + " where few had seen one" * (
        15 if place % 10 == 0 else place % 3
    )


def memory() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Answers:
    """All answers, in memory that is taken before anything is measured."""

    def __init__(self, most: int) -> None:
        self.count = 0
        self.texts = np.zeros(most, dtype=np.int32)
        self.yes = np.zeros(most)  # probabilities
        self.possible = np.full((most, 6), -1, dtype=np.int16)  # contents that may have answered

    def add(self, text: int, yes: float, possible: set[int]) -> None:
        """One more; the caller holds a lock."""
        self.texts[self.count], self.yes[self.count] = text, yes
        self.possible[self.count, : len(possible)] = sorted(possible)
        self.count += 1


class Load:
    """Clients and changes, until so many requests and reloads are done."""

    def __init__(self, port: int, folders: list[Path], requests: int, reloads: int, answers: Answers) -> None:
        self._port, self._folders, self._requests, self._reloads = port, folders, requests, reloads
        self._answers = answers
        self.names, self._lock = Names(), threading.Lock()
        self.asked = self.refused = 0

    def run(self) -> None:
        """All of it."""
        threads = [threading.Thread(target=self._ask, args=(place,)) for place in range(THREADS)]
        threads.append(threading.Thread(target=self._change))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _take(self) -> int | None:
        with self._lock:
            self.asked += 1
            return self.asked - 1 if self.asked <= self._requests else None

    def _ask(self, seed: int) -> None:
        draw, connection = random.Random(seed), http.client.HTTPConnection("127.0.0.1", self._port)
        while (place := self._take()) is not None:
            text = place % TEXTS
            name = "passing" if draw.random() < 0.03 else f"{(text * 7 + draw.randrange(NAMES_PER_TEXT)) % ARTIFACTS}"
            since = time.monotonic()
            status, body = _send(connection, "POST", "/v1/classify", {"model": name, "text": text_of(text)})
            possible = self.names.possible(name, since, time.monotonic())
            if status == 200:
                with self._lock:
                    self._answers.add(text, body["results"][0]["probabilities"]["yes"], possible)
            elif status == 404 and name == "passing":
                self.refused += 1
            else:
                raise RuntimeError(f"{status} {body}")

    def _change(self) -> None:
        connection, draw = http.client.HTTPConnection("127.0.0.1", self._port), random.Random(99)
        for step in range(self._reloads):
            while self.asked < self._requests * step / self._reloads:
                time.sleep(0.005)
            name = f"{draw.randrange(ARTIFACTS)}" if step % 4 else "passing"
            content = draw.randrange(ARTIFACTS)
            self.names.begin(name, content)
            self._admin(connection, "POST", "/v1/artifacts", {"name": name, "folder": str(self._folders[content])})
            self.names.end(name)
            if step % 4 == 2 and "passing" in self.names.versions:
                self._admin(connection, "DELETE", "/v1/artifacts/passing", None)
                self.names.end("passing", last=True)

    def _admin(self, connection: http.client.HTTPConnection, method: str, path: str, body: Any) -> None:
        status, told = _send(connection, method, path, body)
        if status >= 400:
            raise RuntimeError(f"{method} {path}: {status} {told}")


def _send(connection: http.client.HTTPConnection, method: str, path: str, body: Any) -> tuple[int, Any]:
    headers = {"content-type": "application/json", "authorization": f"Bearer {ADMIN}"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    raw = response.read()
    return response.status, json.loads(raw) if raw else None


def wrong(answers: Answers, runtime: Runtime, folders: list[Path]) -> int:
    """Answers that no artifact gives alone that could have given them."""
    for place, path in enumerate(folders):
        runtime.add(f"alone {place}", path)
    alone: dict[tuple[int, int], float] = {}

    def gives(content: int, text: int, yes: float) -> bool:
        if (content, text) not in alone:
            alone[content, text] = runtime.predict([text_of(text)], f"alone {content}")[0].probabilities["yes"]
        return abs(alone[content, text] - yes) <= FAR

    found = zip(answers.texts.tolist(), answers.yes.tolist(), answers.possible.tolist(), strict=True)
    return sum(
        not any(gives(content, text, yes) for content in possible if content >= 0)
        for text, yes, possible in list(found)[: answers.count]
    )


def measure(out: Path, requests: int, reloads: int) -> dict[str, Any]:
    """All of it, written to `out`/endurance.json.

    Args:
        requests, reloads: that are measured; as many as a quarter of them warm up before.
    """
    base = tiny_base()
    with tempfile.TemporaryDirectory() as folder:
        folders = artifacts(base, Path(folder))
        runtime = Runtime(base, DocumentCache(5_000_000))
        for place, path in enumerate(folders):
            runtime.add(f"{place}", path)
        served = Served(Service(runtime, [Path(folder)]), ADMIN)
        steps, answers, refused = [], Answers(requests * 5 // 4), 0
        for part in range(5):
            load = Load(served.port, folders, requests // 4, reloads // 4, answers)
            for name in range(ARTIFACTS):  # what the parts before have left under it
                load.names.begin(f"{name}", name)
                runtime.add(f"{name}", folders[name])
            load.run()
            refused += load.refused
            del load
            steps.append({"rss": memory(), "open_files": len(list(Path("/proc/self/fd").iterdir()))})
            sys.stderr.write(f"{part} {steps[-1]}\n")
        served.stop()
        mistakes = wrong(answers, runtime, folders)
    record = {
        **provenance.stamp(),
        "threads": THREADS,
        "artifacts": ARTIFACTS,
        "requests": requests,
        "reloads": reloads,
        "answers": answers.count,
        "refused_because_removed": refused,
        "wrong": mistakes,
        "steps": steps,
        "growth": steps[-1]["rss"] / steps[0]["rss"] - 1,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "endurance.json", record)
    return record


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/serving"))
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--reloads", type=int, default=200)
    given = parser.parse_args()
    sys.stdout.write(json.dumps(measure(given.out, given.requests, given.reloads), indent=2) + "\n")


if __name__ == "__main__":
    main()
