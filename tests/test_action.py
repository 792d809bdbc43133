"""The composite action, its steps run in order as GitHub does, on results made up for the test.

`uses` steps are left out; pip is a stub that writes down how it was called, and so is `niah run`.
"""

import re
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.stubs import ROOT, logged, stubbed
from tests.synthetic_rows import Synthetic, write_run

pytestmark = pytest.mark.slow

ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
SMALL: dict[str, Any] = {"lengths": (1024, 4096), "depths": (0.0, 0.5, 1.0)}
MADE = {
    "pass": Synthetic(**SMALL, repeats=16, arms={"dense": lambda *_: 1, "v4": lambda *_: 1}),
    "fail": Synthetic(**SMALL, repeats=16, arms={"dense": lambda *_: 1, "v4": lambda *_: 0.3}),
    "inconclusive": Synthetic(**SMALL, repeats=2, arms={"dense": lambda *_: 1, "v4": lambda *_: 1}),
    "undefined": Synthetic(**SMALL, repeats=16, arms={"dense": lambda *_: 0.1, "v4": lambda *_: 1}),
}


class Job(NamedTuple):
    """What a use of the action left: the exit code of the step that ended it, and its outputs."""

    code: int
    log: str
    outputs: dict[str, str]
    summary: str


class Workspace:
    """A job's working folder; `use` is one use of the action in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output, self.summary = folder, folder / "output", folder / "summary"

    def use(self, sweep_code: int = 0, **given: str) -> Job:
        values = input_values(given)
        for path in (self.output, self.summary):
            path.write_text("", encoding="utf-8")
        code, log = 0, ""
        for step in bash_steps(sweep=bool(values["inputs.config"])):
            done = self.run(step, values, sweep_code)
            code, log = done.returncode, log + done.stdout + done.stderr
            if code:
                break
        lines = self.output.read_text(encoding="utf-8").splitlines()
        outputs = dict(line.split("=", 1) for line in lines)
        return Job(code, log, outputs, self.summary.read_text(encoding="utf-8"))

    def run(
        self, step: dict[str, Any], values: dict[str, str], sweep_code: int
    ) -> subprocess.CompletedProcess[str]:
        files = {"GITHUB_OUTPUT": str(self.output), "GITHUB_STEP_SUMMARY": str(self.summary)}
        given = {name: filled(text, values) for name, text in step["env"].items()}
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        environment = stubbed(self.folder, sweep_code) | files | given
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def logged(self, name: str) -> list[str]:
        return logged(self.folder, name)


def input_values(given: dict[str, str]) -> dict[str, str]:
    """What expressions stand for: the inputs, given or by default, and the action's own folder."""
    defaults = {name: entry.get("default", "") for name, entry in ACTION["inputs"].items()}
    inputs = defaults | {name.replace("_", "-"): value for name, value in given.items()}
    values = {f"inputs.{name}": value for name, value in inputs.items()}
    return values | {"github.action_path": str(ROOT)}


def bash_steps(sweep: bool) -> list[dict[str, Any]]:
    steps = [step for step in ACTION["runs"]["steps"] if "run" in step]
    conditions = {step["if"] for step in steps if "if" in step}
    assert conditions == {"inputs.config != ''"}
    return [step for step in steps if sweep or "if" not in step]


def filled(text: str, values: dict[str, str]) -> str:
    """The text with each expression's value; an expression that is not known is an error."""
    return re.sub(r"\$\{\{ (\S+) \}\}", lambda found: values[found[1]], text)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.mark.parametrize(
    ("verdict", "inconclusive", "code"),
    [
        *(("pass", "fail", 0), ("fail", "pass", 1), ("undefined", "pass", 3)),
        *(("inconclusive", "fail", 3), ("inconclusive", "pass", 0)),
    ],
)
def test_a_verdict_ends_the_job_and_is_kept(
    workspace: Workspace, verdict: str, inconclusive: str, code: int
) -> None:
    write_run(workspace.folder / "runs" / "gate", MADE[verdict])
    job = workspace.use(max_tax="0.05", inconclusive=inconclusive)
    assert job.code == code, job.log
    assert job.outputs["verdict"] == verdict
    assert job.summary.startswith(f"### niah gate: {verdict}\n")
    assert job.outputs["report"] == "niah-gate/report.html"
    assert (workspace.folder / "niah-gate" / "report.html").stat().st_size > 10_000
    assert ("::warning::" in job.log) == (verdict == "inconclusive" and inconclusive == "pass")
    assert ("baseline recalls too little" in job.log) == (verdict == "undefined")
    assert not workspace.logged("run")


@pytest.mark.parametrize("error_every", [1, 2])
def test_errors_that_could_turn_the_verdict_are_no_pass(
    workspace: Workspace, error_every: int
) -> None:
    """As many questions as would do, of a server that was down or went down."""
    write_run(workspace.folder / "out", replace(MADE["pass"], error_every=error_every))
    job = workspace.use(1, config="a.yaml", run="out", max_tax="0.05", inconclusive="pass")
    assert job.outputs["verdict"] == "inconclusive"
    assert job.code == 3
    assert "::error::niah gate: errors or missing answers could turn the verdict" in job.log


@pytest.mark.parametrize(("sweep_code", "judged"), [(0, True), (1, True), (2, False), (130, False)])
def test_only_questions_that_ended_in_an_error_are_left_to_the_gate(
    workspace: Workspace, sweep_code: int, judged: bool
) -> None:
    write_run(workspace.folder / "out", MADE["pass"])
    job = workspace.use(sweep_code, config="my sweep.yaml", run="out", max_tax="0.05")
    assert workspace.logged("run") == ["run my sweep.yaml --out out"]
    assert job.code == (0 if judged else sweep_code)
    assert ("verdict" in job.outputs) == judged
    assert ("::warning::niah run" in job.log) == (sweep_code == 1)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"inconclusive": "warn"}, "inconclusive is 'warn'; it should be one of: fail pass"),
        ({"require_slices": "True"}, "require-slices is 'True'; it should be one of: true false"),
        ({"max_tax": "2"}, "max-tax is '2'; it should be a share below 1"),
        ({"max_tax": ""}, "max-tax is ''"),
        (
            {"extras": "hf servers"},
            "extras is 'hf servers'; it should be names separated by commas",
        ),
    ],
)
def test_a_wrong_input_is_refused_before_anything_is_done(
    workspace: Workspace, wrong: dict[str, str], told: str
) -> None:
    job = workspace.use(**({"config": "sweep.yaml", "max_tax": "0.05"} | wrong))
    assert job.code == 2
    assert f"::error::{told}" in job.log
    assert not workspace.logged("pip")
    assert not workspace.logged("run")


def test_an_absent_run_ends_the_job_as_a_wrong_call(workspace: Workspace) -> None:
    job = workspace.use(max_tax="0.05")
    assert job.code == 2
    assert "holds no run" in job.log
    assert "verdict" not in job.outputs


def test_slices_and_an_earlier_run_reach_the_gate(workspace: Workspace) -> None:
    run = write_run(workspace.folder / "now", MADE["pass"])
    job = workspace.use(run="now", against=str(run), require_slices="true", max_tax="0.4")
    assert job.code == 0, job.log
    assert "v4 now against before" in job.summary
    assert "(pass)" not in job.summary  # in brackets: looked at, and not required


def test_two_uses_in_a_job_keep_apart(workspace: Workspace) -> None:
    for name in ("pass", "fail"):
        write_run(workspace.folder / name, MADE[name])
        workspace.use(run=name, out=f"kept/{name}", max_tax="0.05")
    for name in ("pass", "fail"):
        kept = workspace.folder / "kept" / name
        assert f'"verdict": "{name}"' in (kept / "gate.json").read_text(encoding="utf-8")
        files = {"gate.json", "gate.md", "gate.xml", "report.html"}
        assert {path.name for path in kept.iterdir()} == files


def test_pip_gets_its_arguments_and_a_cache_of_its_own(workspace: Workspace) -> None:
    plain = workspace.use(max_tax="0.05").outputs
    more = workspace.use(max_tax="0.05", pip_args="--find-links wheels").outputs
    installs = [line for line in workspace.logged("pip") if " install " in line]
    wanted = f"-m pip install --quiet -c {ROOT}/constraints.txt"
    assert installs == [f"{wanted} {ROOT}", f"{wanted} --find-links wheels {ROOT}"]
    workspace.use(max_tax="0.05", pip_args="--find-links\n  wheels\n")
    assert [line for line in workspace.logged("pip") if " install " in line][2] == installs[1]
    assert plain["folder"] == "the/cache"
    assert plain["key"] != more["key"]


def test_what_a_sweep_needs_is_installed(workspace: Workspace) -> None:
    """Without the extra `run` there is no torch, and a sweep cannot be asked."""
    uses: list[dict[str, str]] = [
        {},
        {"config": "a.yaml"},
        {"config": "a.yaml", "extras": "hf,gguf"},
    ]
    keys = {workspace.use(**use, max_tax="0.05").outputs["key"] for use in uses}
    installs = [line for line in workspace.logged("pip") if " install " in line]
    wanted = f"-m pip install --quiet -c {ROOT}/constraints.txt {ROOT}"
    assert installs == [wanted, f"{wanted}[run]", f"{wanted}[hf,gguf]"]
    assert len(keys) == 3


def test_extras_that_the_document_names_are_there() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named = re.findall(r"`extras: (\w+)`", (ROOT / "docs" / "ci.md").read_text(encoding="utf-8"))
    assert named
    assert set(named) <= set(declared["project"]["optional-dependencies"])
