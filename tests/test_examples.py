"""The files that are there to be copied: they fit the action, the configurations and each other."""

import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from examples.own.model import LastTokens
from examples.own.needle import WORDINGS, Locker
from haystacks.needles.base import TemplateSplit, ValueSplit
from models.errors import ModelError
from models.protocols import Model, Session
from niah.sweep.config import load_sweep
from tests.sessions import greedy_ids, held_total, piece
from tests.stubs import ROOT, logged, stubbed
from tests.synthetic_rows import Synthetic, write_run

WORKFLOWS = sorted((ROOT / "examples" / "github").glob("*.yml"))
SMALL: dict[str, Any] = {"lengths": (1024, 4096), "depths": (0.0, 0.5, 1.0), "repeats": 16}
SAME = Synthetic(**SMALL, arms={"dense": lambda *_: 1, "v4": lambda *_: 1})
WORSE = Synthetic(**SMALL, arms={"dense": lambda *_: 1, "v4": lambda *_: 0.3})


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_gives_the_action_what_it_takes(workflow: Path) -> None:
    inputs = read(ROOT / "action.yml")["inputs"]
    steps = [step for job in read(workflow)["jobs"].values() for step in job["steps"]]
    used = [step["with"] for step in steps if step.get("uses", "").startswith("OWNER/niah@")]
    assert used
    required = {name for name, entry in inputs.items() if entry.get("required")}
    for given in used:
        assert required <= set(given) <= set(inputs)
        assert load_sweep(ROOT / given["config"]).arms
        kept = [step["with"]["path"] for step in steps if "upload-artifact" in step["uses"]]
        assert any(given.get("out", inputs["out"]["default"]) + "/" in path for path in kept)


def test_there_is_a_short_and_a_long_workflow() -> None:
    assert {path.stem for path in WORKFLOWS} == {"recall", "recall-nightly"}


@pytest.mark.slow
@pytest.mark.parametrize(("made", "code"), [(SAME, 0), (WORSE, 1)])
def test_the_hook_judges_the_committed_run(tmp_path: Path, made: Synthetic, code: int) -> None:
    (hook,) = read(ROOT / "examples" / "pre-commit-config.yaml")["repos"][0]["hooks"]
    committed = write_run(tmp_path / "results" / "gate", made)
    assert hook["files"].removeprefix("^") == f"{committed.relative_to(tmp_path)}/"
    command = shlex.split(hook["entry"])
    done = subprocess.run(command, cwd=tmp_path, env=stubbed(tmp_path), check=False)
    assert done.returncode == code


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "sweep_code", "reference", "code", "written"),
    [
        (SAME, 0, None, 0, ["gate"]),
        (SAME, 1, None, 0, ["gate"]),
        (SAME, 2, None, 2, []),
        (SAME, 130, None, 130, []),
        (WORSE, 0, SAME, 1, ["gate", "gate-against"]),
        (SAME, 0, WORSE, 0, ["gate", "gate-against"]),
    ],
)
def test_the_shell_gate_ends_as_the_first_that_did_not_pass(
    tmp_path: Path,
    made: Synthetic,
    sweep_code: int,
    reference: Synthetic | None,
    code: int,
    written: list[str],
) -> None:
    run = write_run(tmp_path / "run", made)
    earlier = [str(write_run(tmp_path / "earlier", reference))] if reference else []
    command = ["bash", str(ROOT / "examples" / "gate.sh"), "sweep.yaml", "run", "0.3", *earlier]
    summary = tmp_path / "summary"
    environment = stubbed(tmp_path, sweep_code) | {"GITHUB_STEP_SUMMARY": str(summary)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == code
    assert logged(tmp_path, "run") == ["run sweep.yaml --out run"]
    assert sorted(path.stem for path in run.glob("gate*.xml")) == written
    assert (run / "report.html").exists() == bool(written)
    told = summary.read_text(encoding="utf-8") if summary.exists() else ""
    assert told.count("### niah gate:") == len(written)


@pytest.fixture(scope="module")
def last_tokens() -> Model:
    return LastTokens("last-tokens", {"window": 24})


def answers(session: Session) -> tuple[int, list[int]]:
    return session.position, greedy_ids(session.fork(), 3)


def test_the_models_sessions_split_and_fork(last_tokens: Model) -> None:
    ids = list(range(100, 160))
    whole, split = last_tokens.session(), last_tokens.session()
    whole.extend(piece(ids))
    for at in range(0, len(ids), 7):
        split.extend(piece(ids[at : at + 7]))
    before = answers(whole)
    assert before == answers(split)
    whole.fork().extend(piece(ids))
    assert answers(whole) == before
    assert held_total(whole) == 24 * 8


def test_the_model_answers_from_its_window_alone(last_tokens: Model) -> None:
    alike, other = last_tokens.session(), last_tokens.session()
    alike.extend(piece([*range(50), *range(200, 224)]))
    other.extend(piece([*range(50, 100), *range(200, 224)]))
    assert answers(alike) == answers(other)
    assert LastTokens("last-tokens", {"window": 48}).fingerprint != last_tokens.fingerprint
    with pytest.raises(ModelError, match="expected window"):
        LastTokens("last-tokens", {"windows": 3})


@pytest.mark.parametrize("templates", list(WORDINGS))
def test_the_needle_is_a_family_like_the_others(templates: TemplateSplit) -> None:
    keys: dict[ValueSplit, set[str]] = {"train": set(), "eval": set()}
    for split, seen in keys.items():
        for fact in Locker().make_many(np.random.default_rng(0), 50, split, templates):
            assert fact.pieces == (f"{fact.statement} {fact.gold[0]}.",)
            assert fact.template.startswith(templates)
            seen.add(fact.key)
    assert keys["train"].isdisjoint(keys["eval"])


def test_its_sweep_names_what_is_registered() -> None:
    sweep = load_sweep(ROOT / "examples" / "own" / "sweep.yaml")
    assert [arm.model for arm in sweep.arms] == ["nano-dense", "last-tokens"]
    assert sweep.families == (Locker.name,)
    assert sweep.corpora == (f"file:{ROOT / 'LICENSE'}",)


ENGINE = ROOT / "examples" / "engine"
HEALTHY = f"""#!{sys.executable}
import http.server, sys

class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

print(*sys.argv[2:], file=open("servers.log", "a"))
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Healthy).serve_forever()
"""
"""In place of Python with a server of llama.cpp."""


@pytest.mark.slow
def test_two_servers_are_started_asked_judged_and_stopped(tmp_path: Path) -> None:
    write_run(tmp_path / "run", WORSE)
    for name, content in (("healthy", HEALTHY), ("weights.gguf", "")):
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "healthy").chmod(0o755)
    environment = stubbed(tmp_path) | {"PYTHON": str(tmp_path / "healthy")}
    command = ["bash", str(ENGINE / "compare.sh"), "weights.gguf", "run", "0.3"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 1
    assert logged(tmp_path, "run") == [f"run {ENGINE}/sweep.yaml --out run"]
    given = [" ".join(line.split()[1:5]) for line in logged(tmp_path, "servers")]
    assert sorted(given) == ["--port 18091 --cache f16", "--port 18092 --cache q8_0"]
    for port in (18091, 18092):
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))


def test_the_engines_sweep_names_the_servers_that_are_started() -> None:
    script = (ENGINE / "compare.sh").read_text(encoding="utf-8")
    started = re.findall(r"^start (\d+) (\w+)$", script, re.MULTILINE)
    sweep = load_sweep(ENGINE / "sweep.yaml")
    options = [arm.options for arm in sweep.arms]
    asked = {(str(given["base_url"]).rsplit(":")[-1].removesuffix("/v1"),
              given["declared"]["cache"]) for given in options}  # type: ignore[index,call-overload]  # fmt: skip
    assert asked == set(started)
    assert {arm.role for arm in sweep.arms} == {"baseline", "repeat", "compressed"}
    (job,) = read(ENGINE / "workflow.yml")["jobs"].values()
    assert job["timeout-minutes"] == 10
    commands = "\n".join(step.get("run", "") for step in job["steps"])
    assert "examples/engine/compare.sh" in commands
