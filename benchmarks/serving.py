"""What serving costs: one document for many artifacts, the server against calls in this process, swaps.

    python -m softprompt.benchmarks.serving --out benchmarks/results/serving

Measures on SmolLM2 with infix prompts that have made one step: how well they answer plays no part in how fast. What is
compared is measured in turns, and medians are reported. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from softprompt.base import Base
from softprompt.benchmarks import provenance
from softprompt.data import Row
from softprompt.runtime import Runtime
from softprompt.serve.limits import Limits
from softprompt.serve.middleware import access
from softprompt.serve.running import listen, server_of
from softprompt.serve.service import Service
from softprompt.storage import write_json
from softprompt.tasks import Task
from softprompt.training import train

ABOUT = (
    "a bill", "a person", "a place", "money", "sports", "food", "health", "weather", "music", "travel", "work", "school",
    "law", "science", "war", "art", "love", "cars", "games", "books",
)  # fmt: skip
DOCUMENT, SHORT = 1000, 30  # tokens
TURNS, CLIENTS, SECONDS = 7, 32, 20.0


def prompts(base: Base, folder: Path) -> dict[str, Path]:
    """A prompt for each question, by name."""
    rows = [
        Row({"text": f"A short text, number {k}.", "label": "yes" if k % 2 else "no"}, f"row {k}") for k in range(16)
    ]
    found = {}
    for about in ABOUT:
        name = about.replace(" ", "-")
        template = {"input": "Text: {{ text }}", "question": f"\nIs it about {about}?", "cue": "\nAnswer:"}
        words = {"yes": "yes", "no": "no"}
        task = Task.load({"name": name, "type": "classification", "verbalizer": words, "template": template})
        settings = {"max_steps": 1, "epochs": 1}
        train(base, task, "infix", folder / name, train=settings, rows={"train": rows, "dev": []}, check=False)
        found[name] = folder / name
    return found


def text_of(base: Base, tokens: int, start: int = 0) -> str:
    """A text of about so many tokens."""
    words = " ".join(f"Film {start + k} was shown in a small town where few had seen one." for k in range(tokens))
    return str(base.tokenizer.decode(base.tokenizer(words)["input_ids"][:tokens]))


def in_turns(count: int, **measured: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each, run in turns after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    for turn in range(count + 1):
        for name, do in measured.items():
            began = time.perf_counter()
            do()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def asking(runtime: Runtime, names: list[str], document: str) -> dict[str, float]:
    """Seconds of one and of all artifacts on a document that is new, and on one that was read before."""

    def cold(some: list[str]) -> None:
        runtime.documents.clear()
        runtime.ask(document, some)

    new = in_turns(TURNS, one=lambda: cold(names[:1]), all=lambda: cold(names))
    kept = in_turns(TURNS, one=lambda: runtime.ask(document, names[:1]), all=lambda: runtime.ask(document, names))
    further = (new["all"] - new["one"]) / (len(names) - 1)
    return {
        "new_one": new["one"],
        "new_all": new["all"],
        "all_to_one": new["all"] / new["one"],
        "further_to_one": further / new["one"],
        "kept_one": kept["one"],
        "kept_all": kept["all"],
    }


def swapping(runtime: Runtime, folders: Mapping[str, Path]) -> dict[str, float]:
    """Seconds to come to another artifact: one that is loaded, which is looked up, and one that lies on the disk."""
    name = next(iter(folders))

    def from_disk() -> None:
        runtime.remove(name)
        runtime.add(name, folders[name])

    return in_turns(TURNS, memory=lambda: runtime.served(name), disk=from_disk)


class Served:
    """A server in a thread of this process, without its access log."""

    def __init__(self, service: Service, admin_token: str | None = None) -> None:
        opened = listen("127.0.0.1", 0)
        self.port = int(opened.getsockname()[1])
        self._server = server_of(service, admin_token=admin_token, grace=5.0)
        access.setLevel(logging.WARNING)
        self._thread = threading.Thread(target=self._server.serve_on, args=(opened,), daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        """End it."""
        self._server.stop()
        self._thread.join()


def post(connection: http.client.HTTPConnection, name: str, text: str) -> None:
    """Ask, and read the answer.

    Raises:
        RuntimeError: it was refused.
    """
    body = json.dumps({"model": name, "text": text})
    connection.request("POST", "/v1/classify", body, {"content-type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(response.read().decode())
    response.read()


def clients(port: int, rows: list[tuple[str, str]], seconds: float) -> list[float]:
    """Seconds of all requests of `CLIENTS` clients that ask one after the other, until the time is over."""
    took: list[float] = []
    end = time.perf_counter() + seconds

    def ask(start: int) -> None:
        connection, place = http.client.HTTPConnection("127.0.0.1", port), start
        while (began := time.perf_counter()) < end:
            post(connection, *rows[place % len(rows)])
            took.append(time.perf_counter() - began)
            place += CLIENTS

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


def serving(base: Base, runtime: Runtime, names: list[str]) -> dict[str, float]:
    """The server against the same rows in this process."""
    texts = [text_of(base, SHORT, start) for start in range(256)]
    rows = [(names[place % len(names)], text) for place, text in enumerate(texts)]
    served = Served(Service(runtime, limits=Limits()))
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    alone = in_turns(
        40, process=lambda: runtime.predict([texts[0]], names[0]), server=lambda: post(connection, names[0], texts[0])
    )
    batch = [{"text": text, "artifact": name} for name, text in rows[:CLIENTS]]
    inside: list[float] = []
    took: list[float] = []
    spawn = multiprocessing.get_context("spawn")
    for _ in range(2):  # in turns
        end = time.perf_counter() + SECONDS / 2
        while (began := time.perf_counter()) < end:
            runtime.predict(batch)
            inside.append(time.perf_counter() - began)
        with spawn.Pool(1) as pool:  # the clients' Python must not take the server's turn
            took += pool.apply(clients, (served.port, rows, SECONDS / 2))
    served.stop()
    took.sort()
    return {
        "one_client_process": alone["process"],
        "one_client_server": alone["server"],
        "overhead": alone["server"] - alone["process"],
        "rows_per_second_process": CLIENTS * len(inside) / sum(inside),
        "rows_per_second_server": len(took) / SECONDS,
        "server_to_process": len(took) / SECONDS / (CLIENTS * len(inside) / sum(inside)),
        "p50": took[len(took) // 2],
        "p99": took[int(0.99 * len(took))],
    }


def measure(out: Path) -> dict[str, Any]:
    """All of it, written to `out`/rows.json."""
    base = Base.load("smollm2")
    with tempfile.TemporaryDirectory() as folder:
        folders = prompts(base, Path(folder))
        runtime = Runtime(base)
        for name, path in folders.items():
            runtime.add(name, path)
        names = list(folders)
        record: dict[str, Any] = {
            **provenance.stamp(),
            "artifacts": len(names),
            "document_tokens": DOCUMENT,
            "asking": asking(runtime, names, text_of(base, DOCUMENT)),
            "swapping": swapping(runtime, folders),
            "serving": serving(base, runtime, names),
        }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "rows.json", record)
    return record


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/serving"))
    sys.stdout.write(json.dumps(measure(parser.parse_args().out), indent=2) + "\n")


if __name__ == "__main__":
    main()
