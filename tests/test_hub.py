"""Artifacts on the hub: uploaded, found again everywhere where a folder is taken, offline, pinned, and from a stranger."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
from pathlib import Path

import huggingface_hub.constants
import pytest
import yaml
from fake_hub import TOKEN, Repo, hub_server
from models import tiny_base, tiny_model, tiny_tokenizer
from test_cli import RUN, TASK, cli, refused

import softprompt as sp
from softprompt import artifact as artifacts
from softprompt.artifact import hub as on_hub
from softprompt.artifact.push import _card_on_hub
from softprompt.base import Base
from softprompt.errors import ArtifactError
from softprompt.lm_eval.learned import learned_of

ROWS = [{"text": f"joy {place}", "label": "good"} for place in range(30)]
ROWS += [{"text": f"rain {place}", "label": "bad"} for place in range(30)]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A base, rows, and a run of two steps."""
    folder = tmp_path_factory.mktemp("hub")
    tiny_model("llama").save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "task.yaml").write_text(yaml.safe_dump(TASK))
    (folder / "run.yaml").write_text(yaml.safe_dump({**RUN, "base": str(folder / "base"), "train": {"max_steps": 2}}))
    done = cli("train", "run.yaml", "--out", "first", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def offline(monkeypatch):
    """Switch `HF_HUB_OFFLINE` on or off; the package reads it once, at its import."""
    return lambda on: monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", on)


@pytest.fixture
def hub(monkeypatch, tmp_path, offline):
    """A hub that `huggingface_hub` takes for the real one, and fresh caches."""
    constants = huggingface_hub.constants
    offline(False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        fresh(monkeypatch, tmp_path / "one")
        yield server


def fresh(monkeypatch, folder: Path) -> None:
    """Caches as on another machine."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(folder / "softprompt"))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def there(hub, work, name: str = "acme/movies", **more: bytes) -> str:
    """A repository that holds the artifact, and more; its commit."""
    hub.repos[name] = repo = Repo()
    return repo.commit({**contents(work / "first" / "artifact"), **more})


def test_what_is_pushed_answers_from_a_fresh_cache(hub, work, monkeypatch, tmp_path):
    done = cli("push", "first", "acme/movies", "--json", tmp_path / "pushed.json", cwd=work)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    pushed = json.loads((tmp_path / "pushed.json").read_text())
    held = hub.repos["acme/movies"].commits[pushed["commit"]]
    ours = contents(work / "first" / "artifact")
    assert set(held) == {*ours, ".gitattributes"} and pushed["files"] == sorted(ours)
    assert all(held[name] == ours[name] for name in ours if name != "README.md")
    card = held["README.md"].decode()
    assert 'runtime.add("t", "hub:acme/movies")' in card.replace(TASK["name"], "t") and "path/to" not in card
    assert pushed["digest"] == sp.load(work / "first").digest
    assert pushed["address"] == f"hub:acme/movies@{pushed['commit']}@sha256:{pushed['digest']}"
    assert pushed["url"] in done.stdout and pushed["address"] in done.stdout

    (work / "ask.jsonl").write_text('{"text": "joy"}\n{"text": "rain"}\n')
    local = cli("predict", "movies=first", "--input", "ask.jsonl", "--base", "base", cwd=work)
    for address in ("hub:acme/movies", pushed["address"]):
        fresh(monkeypatch, tmp_path / address[-4:])
        got = cli("predict", address, "--input", "ask.jsonl", "--base", "base", cwd=work)
        assert got.returncode == 0, got.stderr
        assert got.stdout == local.stdout  # also the name, which is that of the repository
        assert "Fetching" not in got.stderr


def test_a_second_push_replaces_the_first(hub, work, tmp_path):
    hub.repos["acme/movies"] = Repo()
    hub.repos["acme/movies"].commit({"members/old/manifest.json": b"{}", "ensemble.json": b"{}", "notes.txt": b"mine"})
    pushed = artifacts.push(work / "first", "acme/movies", message="Second")
    held = set(hub.repos["acme/movies"].commits[pushed.commit])
    assert held == {*contents(work / "first" / "artifact"), "notes.txt"}  # what we did not push stays
    again = artifacts.push("hub:acme/movies", "acme/copy")
    assert again.digest == pushed.digest


def test_a_model_that_we_did_not_push_stays(hub, work):
    hub.repos["acme/model"] = Repo()
    theirs = {"model.safetensors": b"weights", "config.json": b"{}", "members/list.txt": b"people"}
    hub.repos["acme/model"].commit(theirs)
    held = set(hub.repos["acme/model"].commits[artifacts.push(work / "first", "acme/model").commit])
    assert held == {*contents(work / "first" / "artifact"), *theirs}


def test_files_of_somebody_else_in_a_shared_cache_are_copied(hub, work, monkeypatch):
    """Whoever writes a folder sets the mode of its files, which is not ours to set there."""
    there(hub, work)
    monkeypatch.setattr("softprompt.artifact.hub.os.geteuid", lambda: os.getuid() + 1)
    folder = artifacts.folder_of("hub:acme/movies")
    assert {file.stat().st_nlink for file in folder.iterdir()} == {1}


def test_a_branch_is_made_and_found(hub, work):
    pushed = artifacts.push(work / "first", "acme/movies", revision="v2")
    repo = hub.repos["acme/movies"]
    assert repo.branches["v2"] == pushed.commit != repo.branches["main"]
    assert sp.load("hub:acme/movies@v2").digest == sp.load(f"hub:acme/movies@{pushed.commit}").digest == pushed.digest
    with pytest.raises(ArtifactError, match=r"no such revision"):
        sp.load("hub:acme/movies@v3")
    with pytest.raises(ArtifactError, match=r"holds no file of an artifact"):
        sp.load("hub:acme/movies")  # the main branch is empty


def test_it_is_there_offline(hub, work, offline, monkeypatch, tmp_path):
    there(hub, work)
    digest = sp.load("hub:acme/movies").digest
    count = len(hub.served)
    assert sp.load("hub:acme/movies").digest == digest and len(hub.served) == count  # nothing is downloaded twice
    offline(True)
    shutil.rmtree(tmp_path / "one" / "softprompt")  # the hub's own cache is enough
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sp.load("hub:acme/movies").digest == digest
    for address in ("hub:acme/movies@v2", "hub:acme/others"):
        line = refused(cli("inspect", address, cwd=work), "is not in the cache, and HF_HUB_OFFLINE is set")
        assert line.startswith(f"error: {address}")


@pytest.mark.parametrize("fault", ["answers 503", "is gone"])
def test_a_hub_out_of_reach_is_told(hub, work, monkeypatch, fault):
    """What was downloaded before stands in, with a warning; what was not is refused."""
    there(hub, work)
    digest = sp.load("hub:acme/movies").digest
    if fault == "is gone":
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    else:
        hub.fails = 503
    with pytest.warns(UserWarning, match=r"hub:acme/movies: the hub cannot be reached \(.+\), so commit [0-9a-f]{12}"):
        assert sp.load("hub:acme/movies").digest == digest
    refused(cli("inspect", "hub:acme/others", cwd=work), "hub:acme/others: the hub cannot be reached")


def test_a_new_commit_is_taken(hub, work, tmp_path):
    there(hub, work)
    first = artifacts.folder_of("hub:acme/movies")
    changed = contents(work / "first" / "artifact") | {"README.md": b"new"}
    commit = hub.repos["acme/movies"].commit(changed)
    second = artifacts.folder_of("hub:acme/movies")
    assert first != second and second.parent.name == commit and (second / "README.md").read_bytes() == b"new"
    assert not any(file.is_symlink() for file in second.rglob("*"))


def test_a_pinned_digest_is_held_to(hub, work):
    there(hub, work)
    right, wrong = sp.load(work / "first").digest, "0" * 64
    assert sp.load(f"hub:acme/movies@main@sha256:{right}").digest == right
    assert artifacts.folder_of(f"hub:acme/movies@sha256:{right}").name == "movies"
    for take in (sp.load, artifacts.folder_of):
        with pytest.raises(ArtifactError, match=f"has digest {right}, its address says {wrong}"):
            take(f"hub:acme/movies@sha256:{wrong}")
    refused(cli("inspect", f"hub:acme/movies@sha256:{wrong}", cwd=work), right, wrong)
    runtime = sp.Runtime(tiny_base("llama"))
    with pytest.raises(ArtifactError, match=wrong):
        runtime.add("movies", f"hub:acme/movies@sha256:{wrong}")


@pytest.mark.parametrize(
    "text",
    [
        "hub:",
        "hub:movies",
        "hub:a/b/c",
        "hub:a/b@",
        "hub:../x",
        "hub:a/b@sha256:12",
        "hub:a/b c",
        "hub:a/--x",
        "hub:a/b@../x",
        "hub:a/b@/x",
    ],
)
def test_what_is_no_address_is_told(hub, work, text):
    refused(cli("inspect", text, cwd=work), "hub:")
    with pytest.raises(
        ArtifactError, match=r"is no address of an artifact|is no name of a repository|no such repository"
    ):
        sp.load(text)


def test_a_folder_of_that_name_is_still_a_folder(work, tmp_path):
    shutil.copytree(work / "first", tmp_path / "hub:mine")
    assert sp.load(tmp_path / "hub:mine").digest == sp.load(work / "first").digest
    done = cli("inspect", tmp_path / "hub:mine", "--words", 0, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


TAKES = {
    "ask": ("ask", "rows.txt", "--with", "{}"),
    "average": ("average", "first", "{}", "--out", "mean"),
    "doctor": ("doctor", "{}"),
    "ensemble": ("ensemble", "first", "{}", "--out", "both"),
    "eval": ("eval", "{}"),
    "export": ("export", "{}", "--to", "peft", "--out", "out"),
    "import": ("import", "{}", "--task", "task.yaml", "--out", "out"),
    "inspect": ("inspect", "{}"),
    "merge": ("merge", "{}", "--out", "out"),
    "predict": ("predict", "name={}", "--input", "rows.jsonl"),
    "prune": ("prune", "{}", "--to", "1"),
    "push": ("push", "{}", "acme/other"),
    "serve": ("serve", "first", "{}"),
    "train": ("train", "run.yaml", "method.init=artifact", "method.artifact={}", "--out", "out"),
}


@pytest.mark.parametrize("verb", TAKES)
def test_every_verb_looks_on_the_hub(hub, work, verb):
    (work / "rows.txt").write_text("joy")
    address = "hub:acme/none@v1"
    done = cli(*(word.format(address) for word in TAKES[verb]), cwd=work)
    line = refused(done, f"{address}: no such repository, or a private one")
    assert "hf auth login" in line and "HF_TOKEN" in line


def test_python_takes_addresses_too(hub, work, tmp_path):
    there(hub, work)
    base = Base.load(str(work / "base"))
    runtime = sp.Runtime(base)
    runtime.add("local", work / "first")
    runtime.add("hub", "hub:acme/movies")
    asked = [{"text": "joy", "artifact": name} for name in ("local", "hub")]
    local, remote = runtime.predict(asked)
    assert local.probabilities == remote.probabilities
    assert sp.PromptClassifier.load("hub:acme/movies", base=base).predict(["joy"]) == [local.label]
    assert learned_of(base, "hub:acme/movies")[0].spec.name == "infix"
    folder = sp.export("hub:acme/movies", "kv", tmp_path / "kv", base=base)
    assert folder.is_dir()


def test_an_ensemble_goes_up_and_comes_back(hub, work, monkeypatch, tmp_path):
    there(hub, work)
    saved = sp.save_ensemble(tmp_path / "both", [(work / "first", 0.25), ("hub:acme/movies", 0.75)])
    pushed = artifacts.push(tmp_path / "both", "hub:acme/both")
    assert pushed.digest == saved.digest and "members/infix-2/manifest.json" in pushed.files
    fresh(monkeypatch, tmp_path / "two")
    address = pushed.address
    assert artifacts.is_ensemble(address) and artifacts.load_ensemble(address).digest == saved.digest
    with pytest.raises(ArtifactError, match="its address says"):
        artifacts.load_ensemble(f"hub:acme/both@sha256:{'1' * 64}")


def test_a_run_starts_from_an_address_and_its_digest(hub, work, tmp_path):
    there(hub, work)
    digest = sp.load(work / "first").digest
    run = yaml.safe_load((work / "run.yaml").read_text())
    address = f"hub:acme/movies@main@sha256:{digest}"
    run["method"] = {"name": "infix", "length": 3, "init": "artifact", "artifact": address}
    run["task"] = str(work / "task.yaml")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    done = cli("train", "run.yaml", "--out", "next", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sp.load(tmp_path / "next").manifest.method["init"] == "artifact"
    assert yaml.safe_load((tmp_path / "next" / "run.yaml").read_text())["method"]["artifact"] == address
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run).replace(digest, "f" * 64))
    refused(cli("train", "run.yaml", "--out", "other", cwd=tmp_path), digest, "f" * 64)


# ---------------------------------------------------------------- strangers


class Evil:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("/tmp/softprompt-was-run"),))


def test_only_files_of_an_artifact_are_fetched(hub, work, tmp_path):
    more = {
        "pytorch_model.bin": pickle.dumps(Evil()),
        "modeling_x.py": b"raise SystemExit",
        "big/pytorch_model.safetensors": b"0",
    }
    there(hub, work, **more)
    folder = artifacts.folder_of("hub:acme/movies")
    assert set(contents(folder)) == set(contents(work / "first" / "artifact")) == set(hub.served)
    assert sp.load("hub:acme/movies").digest == sp.load(work / "first").digest


def test_a_snapshot_that_somebody_else_made_gives_no_more(hub, work):
    there(hub, work, **{"modeling_x.py": b"raise SystemExit"})
    huggingface_hub.snapshot_download("acme/movies")
    assert "modeling_x.py" in hub.served
    assert set(contents(artifacts.folder_of("hub:acme/movies"))) == set(contents(work / "first" / "artifact"))


@pytest.mark.parametrize(
    "name, size, problem",
    [
        ("adapter_model.safetensors", on_hub.MAX_BYTES + 1, "has 8,000,000,001 bytes, expected at most 8,000,000,000"),
        ("README.md", on_hub.MAX_FILE_BYTES + 1, "README.md has 100,000,001 bytes"),
        ("more.json", None, "has an unknown number of bytes"),
    ],
)
def test_what_is_too_large_is_not_begun(hub, work, name, size, problem):
    there(hub, work, **({name: b"{}"} if name == "more.json" else {}))
    hub.sizes[name] = size
    line = refused(cli("inspect", "hub:acme/movies", cwd=work), "hub:acme/movies: ", problem)
    assert "hf download" in line and not hub.served


def test_too_many_files_or_too_much_together_is_not_begun(hub, work):
    there(hub, work, **{f"{place}.json": b"{}" for place in range(on_hub.MAX_FILES)})
    with pytest.raises(ArtifactError, match="holds 503 files, expected at most 500"):
        sp.load("hub:acme/movies")
    there(hub, work, "acme/large", **{f"{place}.json": b"{}" for place in range(81)})
    hub.sizes |= {f"{place}.json": on_hub.MAX_FILE_BYTES for place in range(81)}
    with pytest.raises(ArtifactError, match="bytes in all, expected at most"):
        sp.load("hub:acme/large")
    assert not hub.served


@pytest.mark.parametrize("name", ["manifest.json", "adapter_model.safetensors"])
def test_what_was_changed_is_refused_as_anywhere(hub, work, name):
    data = contents(work / "first" / "artifact")[name]
    there(hub, work, **{name: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]})
    line = refused(cli("inspect", "hub:acme/movies", "--words", 0, cwd=work), name)
    assert "Traceback" not in line and "changed" in line


def test_an_artifact_names_no_base_and_nothing_to_fetch(hub, work):
    """The manifest's base id is for people, and what its method started from is history."""
    there(hub, work)
    refused(
        cli("predict", "hub:acme/movies", "--input", "rows.jsonl", cwd=work), "artifact or a run file from elsewhere"
    )
    there(hub, work, "acme/start")
    manifest = sp.load("hub:acme/start").manifest
    changed = manifest.model_copy(update={"method": {**manifest.method, "init": "artifact", "artifact": "hub:evil/x"}})
    there(hub, work, **{"manifest.json": changed.to_json().encode()})
    base = Base.load(str(work / "base"))
    runtime = sp.Runtime(base)
    runtime.add("movies", "hub:acme/movies")  # hub:evil/x is not there, and nobody asks for it
    assert runtime.predict(["joy"], "movies")[0].label in ("good", "bad")


# ---------------------------------------------------------------- rights


def test_who_may_not_is_told_what_to_do(hub, work, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    line = refused(cli("push", "first", "acme/movies", cwd=work), "the hub does not allow this", "may write there")
    assert "hf_reader" not in line and "hf_…" in line
    monkeypatch.delenv("HF_TOKEN")
    refused(cli("push", "first", "acme/movies", cwd=work), "wants to know who you are", "hf auth login", "HF_TOKEN")
    there(hub, work)
    hub.repos["acme/movies"].private = True
    refused(cli("inspect", "hub:acme/movies", cwd=work), "no such repository, or a private one", "hf auth login")
    hub.repos["acme/movies"].private, hub.repos["acme/movies"].gated = False, True
    refused(cli("inspect", "hub:acme/movies", cwd=work), "is gated; ask for access")
    assert not hub.served


def test_nothing_becomes_public_by_mistake(hub, work):
    there(hub, work)
    before = dict(hub.repos["acme/movies"].branches)
    refused(cli("push", "first", "acme/movies", "--private", cwd=work), "is public already")
    assert hub.repos["acme/movies"].branches == before
    assert artifacts.push(work / "first", "acme/secret", private=True).commit
    assert hub.repos["acme/secret"].private
    artifacts.push(work / "first", "acme/secret", private=True)


def test_push_tells_what_stands_against_it(hub, work, offline, tmp_path):
    damaged = shutil.copytree(work / "first" / "artifact", tmp_path / "damaged")
    (damaged / "adapter_model.safetensors").write_bytes(b"0" * 40)
    refused(cli("push", damaged, "acme/movies", cwd=work), "adapter_model.safetensors")
    assert not hub.repos  # what cannot be loaded makes no repository
    refused(cli("push", "first", "movies", cwd=work), "expected hub:OWNER/NAME")
    refused(cli("push", "first", "hub:acme/movies@v1", cwd=work), "expected OWNER/NAME alone")
    (tmp_path / "secret").write_text("mine")
    linked = shutil.copytree(work / "first" / "artifact", tmp_path / "linked")
    (linked / "README.md").unlink()
    (linked / "README.md").symlink_to(tmp_path / "secret")
    refused(cli("push", linked, "acme/movies", cwd=work), "is a link to")
    card = shutil.copytree(work / "first" / "artifact", tmp_path / "card")
    text = (card / "README.md").read_text().split("\n")
    text[1] = 'base_model: "/home/me/base"'
    (card / "README.md").write_text("\n".join(text))
    refused(cli("push", card, "acme/movies", cwd=work), "base_model is not valid", "README.md")
    hub.fails = 500
    refused(cli("push", "first", "acme/movies", cwd=work), "the hub answers 500; try again later")
    offline(True)
    refused(cli("push", "first", "acme/movies", cwd=work), "HF_HUB_OFFLINE is set; unset it")


def test_a_bundled_base_has_its_name_on_the_hub():
    both = [f'base_model: "{name}"\ntags:\n' for name in ("smollm2", "mine/smollm2")]
    first, second = (_card_on_hub(f'---\n{head}---\nbase_model: "smollm2"\n', "a/b") for head in both)
    assert yaml.safe_load(first.split("---\n")[1])["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert yaml.safe_load(second.split("---\n")[1])["base_model"] == "mine/smollm2"
    assert first.endswith('---\nbase_model: "smollm2"\n')


# ---------------------------------------------------------------- a server


def test_a_server_loads_what_its_owner_trusts(hub, work):
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    from softprompt.serve.http import create_app
    from softprompt.serve.service import Service

    there(hub, work)
    service = Service(sp.Runtime(Base.load(str(work / "base"))), [work], owners=["acme"])
    client = TestClient(create_app(service, admin_token="admin"))
    admin = {"Authorization": "Bearer admin"}

    def load(folder, headers=admin):
        return client.post("/v1/artifacts", json={"name": "m", "folder": folder}, headers=headers)

    assert load("hub:acme/movies", {}).status_code == 401
    other = load("hub:evil/movies")
    assert other.status_code == 422 and "add --hub OWNER" in other.json()["error"]
    missing = load("hub:acme/none")
    assert missing.status_code == 422 and "no such repository" in missing.json()["error"]
    assert load("hub:acme").status_code == 422
    assert load("hub:acme/movies").status_code == 201
    assert client.post("/v1/classify", json={"model": "m", "text": "joy"}).status_code == 200
    assert service.close(10)
