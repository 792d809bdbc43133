"""Endless logs of a tool-using agent: tasks, thoughts, calls with JSON arguments, results.

Own wording throughout; no such agent ran.
"""

import json
from collections.abc import Callable

import numpy as np

from haystacks.corpora.generated.chunks import Slots, endless_text
from haystacks.corpora.texts import Text
from haystacks.needles.base import pick

TASKS = (
    "Find out why the {word} report is {percent} per cent off and fix it.",
    "Add a {adjective} option to the {word} command and cover it with tests.",
    "Summarise the {word} tickets that were opened since {date}.",
    "Move the {word} tables to the {adjective} cluster without downtime.",
    "Answer the customer who asks about the {word} that was ordered on {date}.",
)
THOUGHTS = (
    "The {word} module looks {adjective}; I will read it before I change anything.",
    "The last result contradicts what the {word} page says, so I check the {word} next.",
    "That explains the failure on {date}: the {word} was never refreshed.",
    "I have what I need for the {word}; what remains is the {adjective} {word}.",
    "Nothing there. I try the {adjective} branch instead.",
)
SOURCE_LINES = (
    "def {word}_{word}(self, {word}):",
    "    {word} = {word}.get('{word}', {few})",
    "    if {word} > {many}: raise ValueError('{adjective} {word}')",
    "    return [{word} for {word} in self.{word}s]",
    "# {word}: see ticket {many}, closed on {date}",
)
LOG_LINES = (
    "WARN {word}-{few}: retry {few} after {many} ms",
    "INFO {word}: {many} rows in {percent} s",
    "ERROR {word}.{word}: {adjective} checksum {hex}",
    "DEBUG cache {hex} holds {many} entries",
)
MIN_STEPS, MAX_STEPS = 12, 24


def agent_log() -> Text:
    """The corpus "agent-log"."""
    return endless_text("agent-log", "agent logs: generated tool calls and results", session)


def session(rng: np.random.Generator) -> str:
    """One session of some 6,000 characters: a task, then steps with growing clock times."""
    slots = Slots(rng)
    clock = slots.integer(0, 60_000)
    lines = [f"=== session {slots['hex']} {slots.date()} ===", f"task: {_fill(rng, TASKS)}"]
    for step in range(1, slots.integer(MIN_STEPS, MAX_STEPS) + 1):
        clock += slots.integer(1, 90)
        time = f"{clock // 3600:02d}:{clock // 60 % 60:02d}:{clock % 60:02d}"
        call, result = pick(rng, TOOLS)(rng)
        lines.append(f"[{time}] step {step} thought: {_fill(rng, THOUGHTS)}")
        lines.append(f"[{time}] step {step} call: {call}")
        lines += [f"[{time}] step {step} result: {line}" for line in result]
    return "\n".join(lines) + "\n"


def _read_file(rng: np.random.Generator) -> tuple[str, list[str]]:
    slots = Slots(rng)
    first = slots.integer(1, 900)
    call = _call("read_file", path=_path(slots), first_line=first)
    body = [_fill(rng, SOURCE_LINES) for _ in range(slots.integer(3, 8))]
    return call, [f"{first + i}: {line}" for i, line in enumerate(body)]


def _search(rng: np.random.Generator) -> tuple[str, list[str]]:
    slots = Slots(rng)
    call = _call("search", query=f"{slots['adjective']} {slots.word()}", limit=slots.integer(3, 20))
    hits = [f"{_path(slots)}:{slots['many']}: {_fill(rng, SOURCE_LINES).strip()}" for _ in "abc"]
    return call, hits


def _shell(rng: np.random.Generator) -> tuple[str, list[str]]:
    slots = Slots(rng)
    call = _call("shell", command=f"tail -n {slots['few']} logs/{slots.word()}.log")
    output = [_fill(rng, LOG_LINES) for _ in range(slots.integer(2, 7))]
    return call, [*output, f"exit code {slots.integer(0, 2)}"]


def _query(rng: np.random.Generator) -> tuple[str, list[str]]:
    slots = Slots(rng)
    table = slots.word()
    call = _call("sql", query=f"SELECT name, total FROM {table} WHERE day = '{slots.date()}'")
    rows = [f"{slots.word()} | {slots['many']}" for _ in range(slots.integer(2, 6))]
    return call, rows


def _fetch(rng: np.random.Generator) -> tuple[str, list[str]]:
    slots = Slots(rng)
    call = _call("http_get", url=f"https://{slots.word()}.example/{slots.word()}/{slots['many']}")
    body = {"status": slots["adjective"], "owner": slots.word(), "count": slots.integer(1, 9999)}
    return call, [json.dumps(body)]


TOOLS: tuple[Callable[[np.random.Generator], tuple[str, list[str]]], ...] = (
    _read_file,
    _search,
    _shell,
    _query,
    _fetch,
)


def _call(tool: str, **arguments: object) -> str:
    return f"{tool}({json.dumps(arguments)})"


def _path(slots: Slots) -> str:
    return f"src/{slots.word()}/{slots.word()}_{slots.word()}.py"


def _fill(rng: np.random.Generator, templates: tuple[str, ...]) -> str:
    return pick(rng, templates).format_map(Slots(rng))
