"""The image and the cluster as docs/how-to/deploy.md describes them: what the files name is there and is understood."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from models import tiny_base
from test_examples import rows_of

import softprompt as sp
from softprompt.errors import ConfigError

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "how-to" / "deploy.md").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, each with what stands behind it on one line."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    whole = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in whole.splitlines() if line)]


def told(name: str) -> list[str]:
    return [rest for word, rest in instructions() if word == name]


def test_what_is_copied_is_there_and_not_ignored():
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] not in ("", "#")]
    assert lines[0] == "*"
    kept = [line.removeprefix("!") for line in lines if line.startswith("!")]
    copied = [source for rest in told("COPY") if "--from" not in rest for source in rest.split()[:-1]]
    assert copied and set(copied) == set(kept)
    for source in copied:
        assert (ROOT / source).exists(), source


def test_every_package_has_its_pinned_version():
    installs = [part for run in told("RUN") for part in run.split("&&") if "pip install" in part]
    assert len(installs) == 3 and all("-c constraints.txt" in install for install in installs)
    assert "--no-build-isolation" in installs[-1]  # else pip would fetch a setuptools of its own
    pinned = (ROOT / "constraints.txt").read_text("utf-8")
    for name in ("torch", "setuptools", "fastapi", "uvicorn", "prometheus-client"):
        assert f"\n{name}==" in pinned
    (python,) = (re.fullmatch(r"PYTHON=python:3\.(\d+)-slim", rest) for rest in told("ARG") if "PYTHON" in rest)
    assert python and 10 <= int(python[1]) <= 13


def started(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the container does at its start, with a program in place of ours that says what it was given."""
    (entry,), (default,) = told("ENTRYPOINT"), told("CMD")
    stand_in = tmp_path / "softprompt"
    stand_in.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n", encoding="utf-8")
    stand_in.chmod(0o755)
    command = [*json.loads(entry), *(arguments or json.loads(default))]
    around = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=around)


def test_the_container_asks_for_a_token_or_the_choice_of_none(tmp_path):
    refused = started(tmp_path)
    assert refused.returncode and "SOFTPROMPT_TOKEN" in refused.stderr and not refused.stdout
    for token in ("", "secret"):
        assert started(tmp_path, SOFTPROMPT_TOKEN=token).returncode == 0


def serve_arguments(*given: str) -> dict[str, object]:
    """What `softprompt serve` understands of its arguments, without serving."""
    from softprompt.cli import import_verbs
    from softprompt.cli.app import app

    import_verbs()
    with typer.main.get_command(app).commands["serve"].make_context("serve", list(given)) as context:
        return context.params


@pytest.mark.parametrize("token", ["", "secret"])
def test_the_command_of_the_container_is_understood(tmp_path, monkeypatch, token):
    monkeypatch.setenv("SOFTPROMPT_TOKEN", token)
    verb, *given = json.loads(started(tmp_path, SOFTPROMPT_TOKEN=token).stdout)
    found = serve_arguments(*given)
    assert verb == "serve" and found["folders"] == [Path("/artifacts")]
    assert (found["host"], found["port"], found["token"]) == ("0.0.0.0", 8080, token or None)
    assert told("EXPOSE") == ["8080"] and ":8080/healthz" in told("HEALTHCHECK")[0]


def test_the_containers_of_the_page_start(tmp_path):
    """The arguments that stand behind the image's name."""
    runs = [shlex.split(line) for line in re.findall(r"^docker run .*", PAGE, re.MULTILINE)]
    assert len(runs) == 3
    for run in runs:
        behind = run[next(place for place, word in enumerate(run) if fnmatch.fnmatch(word, "softprompt*")) + 1 :]
        _, *given = json.loads(started(tmp_path, *behind, SOFTPROMPT_TOKEN="").stdout)
        assert serve_arguments(*given)["folders"]
    arguments = {rest.partition("=")[0] for rest in told("ARG")}
    assert set(re.findall(r"--build-arg (\w+)=", PAGE)) <= arguments


@pytest.fixture
def prompts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import demo_prompts

    return demo_prompts


def test_the_prompts_of_the_image_are_made(prompts, tmp_path):
    import demo

    (run,) = (run for run in told("RUN") if "examples/" in run)
    assert run == "python examples/demo_prompts.py --out /artifacts"
    base, sizes = (
        tiny_base("llama"),
        demo.Sizes({"train": 8, "dev": 4, "test": 0}, {"train": 2, "dev": 1, "test": 1}, 1),
    )
    made = prompts.make(base, rows_of(demo), tmp_path / "artifacts", sizes)
    assert list(made) == ["sentiment", "origin"]
    runtime = sp.Runtime(base)
    for name, folder in made.items():
        assert folder == tmp_path / "artifacts" / name
        runtime.add(name, folder)
        assert str(tmp_path) not in "".join(file.read_text("utf-8") for file in folder.rglob("*.json"))
    assert runtime.predict(["pos"], "origin")[0].label in demo.ORIGINS.values()
    with pytest.raises(ConfigError, match="is there already"):
        prompts.make(base, {}, tmp_path / "artifacts", sizes)


def test_the_page_s_file_for_ray_is_understood():
    schema = pytest.importorskip("ray.serve.schema", reason="Ray Serve is not installed: pip install 'softprompt[ray]'")
    from softprompt.serve.ray import deployment

    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (application,) = schema.ServeDeploySchema.model_validate(yaml.safe_load(text)).applications
    module, _, name = application.import_path.partition(":")
    assert (module, name) == (deployment.__module__, deployment.__name__)
    assert deployment(application.args)._bound_deployment.num_replicas == 2
    (command,) = re.findall(r"^serve run (.*)", PAGE, re.MULTILINE)
    path, *words = command.split()
    assert path == application.import_path
    placed = deployment(dict(word.split("=") for word in words))._bound_deployment
    assert placed.num_replicas == 2 and placed.ray_actor_options["num_cpus"] == 2
