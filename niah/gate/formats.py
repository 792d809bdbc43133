"""The gate's result for people and for machines: text, Markdown, JSON, JUnit XML."""

from __future__ import annotations

import json
from collections.abc import Sequence
from xml.etree import ElementTree

from niah.gate.verdict import Check, GateResult
from niah.statistics.graded import Graded, graded_text
from niah.statistics.noise import Noise, noise_text
from niah.statistics.power import on_margin
from niah.text_format import counted, markdown_text, points

HEADERS = ("check", "tax", "95%", "lost", "gained", "pairs", "streams", "verdict")
MAX_NAMED = 3  # failed checks of a comparison in the sentence; the table has them all


def as_text(result: GateResult) -> str:
    """A table for a terminal, the verdict first."""
    lines = [summary(result), ""]
    for title, checks in _by_comparison(result):
        rows = [HEADERS, *(_row(check) for check in checks)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADERS))]
        lines += [title, *(_aligned(row, widths) for row in rows), ""]
    lines += [f"{name}: {advice(check)}" for name, check in named(result) if advice(check)]
    lines += _informed(result)
    lines += [f"note: {note}" for note in result.notes]
    return "\n".join(lines).rstrip() + "\n"


def as_markdown(result: GateResult) -> str:
    """For a CI summary: $GITHUB_STEP_SUMMARY and the like."""
    lines = [f"### niah gate: {result.verdict}", "", markdown_text(summary(result)), ""]
    for title, checks in _by_comparison(result):
        lines += [f"**{markdown_text(title)}**", "", f"| {' | '.join(HEADERS)} |"]
        lines.append("|:--|--:|--:|--:|--:|--:|--:|:--|")
        lines += [f"| {' | '.join(map(markdown_text, _row(check)))} |" for check in checks]
        lines.append("")
    found = [f"- {name}: {advice(check)}" for name, check in named(result) if advice(check)]
    found += [f"- {line}" for line in _informed(result)]
    lines += [markdown_text(line) for line in (*found, *(f"- {note}" for note in result.notes))]
    return "\n".join(lines).rstrip() + "\n"


def as_json(result: GateResult) -> str:
    """Every number behind the verdict; shares from 0 to 1."""
    content = {
        "run": result.run,
        "against": result.against,
        "max_tax": result.max_tax,
        "alpha": result.alpha,
        "verdict": result.verdict,
        "exit_code": result.exit_code,
        "checks": [_fields(check) for check in result.checks],
        "noise": [_noise_fields(noise) for noise in result.noise],
        "graded": [_graded_fields(title, found) for title, found in result.graded],
        "notes": list(result.notes),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def as_junit(result: GateResult) -> str:
    """JUnit XML: a failed check is a failure, an undecided one that decides is an error."""
    deciding = [check for check in result.checks if check.decides]
    failures = sum(check.verdict == "fail" for check in deciding)
    errors = sum(check.verdict in ("inconclusive", "undefined") for check in deciding)
    suite = ElementTree.Element(
        "testsuite",
        name="niah gate",
        tests=str(len(result.checks)),
        failures=str(failures),
        errors=str(errors),
        skipped=str(sum(c.verdict != "pass" and not c.decides for c in result.checks)),
    )
    if result.noise:
        properties = ElementTree.SubElement(suite, "properties")
        for noise in result.noise:
            value = _xml(noise_text(noise))
            ElementTree.SubElement(properties, "property", name="noise floor", value=value)
    for check in result.checks:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_xml(check.comparison), name=_xml(check.name)
        )
        if check.verdict != "pass":
            tag = "skipped" if not check.decides else "failure" if _failed(check) else "error"
            found = ElementTree.SubElement(case, tag, message=_xml(_sentence(check)))
            found.text = _xml(advice(check)) if tag != "skipped" else None
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def summary(result: GateResult) -> str:
    """The verdict in a sentence."""
    margin = f"{points(result.max_tax)} points"
    what = f"{result.run} against {result.against}" if result.against else result.run
    if result.verdict == "pass":
        return f"PASS {what}: recall lost is shown to be at most {margin}."
    if result.verdict == "fail":
        return f"FAIL {what}: recall lost is shown to exceed the margin ({_failures(result)})."
    return f"INCONCLUSIVE {what}: recall lost is shown neither within {margin} nor beyond."


def _failures(result: GateResult) -> str:
    """The checks that failed, a comparison's name once: `a against b: overall, Length 1K; ...`."""
    groups = [
        (title, [check.name for check in checks if check.decides and _failed(check)])
        for title, checks in _by_comparison(result)
    ]
    several = len(groups) > 1
    lists = [(f"{title}: " if several else "") + _listed(names) for title, names in groups if names]
    return "; ".join(lists)


def _listed(names: Sequence[str]) -> str:
    shown, more = ", ".join(names[:MAX_NAMED]), len(names) - MAX_NAMED
    return f"{shown} and {counted(more, 'slice')} more" if more > 0 else shown


def named(result: GateResult) -> list[tuple[str, Check]]:
    """The checks by name; where there are several comparisons, that of their own before it."""
    several = len({check.comparison for check in result.checks}) > 1
    return [
        (f"{check.comparison}, {check.name}" if several else check.name, check)
        for check in result.checks
    ]


def advice(check: Check) -> str:
    """What would settle a check that is not settled and has to be; empty for the others."""
    if not check.decides or check.verdict not in ("inconclusive", "undefined"):
        return ""
    if check.verdict == "undefined":
        return check.reason
    if not check.tax.decidable or check.bounds.unanswered:
        return f"{check.reason}; then about {_more(check)}" if check.more_pairs else check.reason
    if on_margin(check.tax, check.margin):
        return f"{check.reason}; the tax lies on the margin, which no number of pairs would settle"
    if check.more_pairs is None:
        return check.reason
    return f"{check.reason}; about {_more(check)} would settle it if the tax stays as seen"


def _more(check: Check) -> str:
    more = check.more_pairs or 0
    factor = (check.tax.pairs + more) / check.tax.pairs
    return f"{more:,} more pairs ({factor:.1f} times as many repeats)"


def _row(check: Check) -> tuple[str, ...]:
    tax, shown = check.tax, check.verdict if check.decides else f"({check.verdict})"
    low, high = tax.interval
    span = f"{points(low)} to {points(high)}" if tax.defined else "–"
    value = points(tax.value) if tax.defined else "–"
    counts = (str(tax.lost), str(tax.gained), f"{tax.pairs:,}", str(tax.streams))
    return (check.name, value, span, *counts, shown)


def _aligned(row: tuple[str, ...], widths: list[int]) -> str:
    first, *middle, last = (
        text.ljust(width) if number in (0, len(row) - 1) else text.rjust(width)
        for number, (text, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  " + "  ".join([first, *middle, last]).rstrip()


def _by_comparison(result: GateResult) -> list[tuple[str, list[Check]]]:
    titles = dict.fromkeys(check.comparison for check in result.checks)
    return [(t, [check for check in result.checks if check.comparison == t]) for t in titles]


def _fields(check: Check) -> dict[str, object]:
    tax = check.tax
    return {
        "comparison": check.comparison,
        "name": check.name,
        "verdict": check.verdict,
        "decides": check.decides,
        "reason": check.reason,
        "margin": check.margin,
        "tax": tax.value if tax.defined else None,
        "interval": list(tax.interval) if tax.defined else None,
        "baseline": tax.baseline,
        "compressed": tax.compressed,
        "pairs": tax.pairs,
        "streams": tax.streams,
        "lost": tax.lost,
        "gained": tax.gained,
        "errors": tax.errors,
        "unanswered": check.bounds.unanswered,
        "errors_decide": check.errors_decide,
        "design_effect": tax.design_effect,
        "freedom": tax.freedom,
        "decidable": tax.decidable,
        "p_at_most": check.bounds.p_at_most,
        "p_above": check.bounds.p_above,
        "p_mcnemar": tax.p_mcnemar,
        "more_pairs": check.more_pairs,
    }


def _informed(result: GateResult) -> list[str]:
    """Lines about what decides nothing by itself: noise floor and graded signal."""
    noise = [f"noise floor: {noise_text(noise)}" for noise in result.noise]
    return [*noise, *(f"gold log-probability, {graded_text(*found)}" for found in result.graded)]


def _graded_fields(title: str, found: Graded) -> dict[str, object]:
    """In nats; no interval where there are too few streams for one."""
    return {
        "comparison": title,
        "pairs": found.pairs,
        "streams": found.streams,
        "baseline": found.baseline,
        "compressed": found.compressed,
        "difference": found.difference,
        "interval": list(found.interval) if found.streams > 1 else None,
        "freedom": found.freedom,
        "decidable": found.decidable,
    }


def _noise_fields(noise: Noise) -> dict[str, object]:
    tax, share = noise.tax, noise.discordance
    return {
        "arm": noise.arm,
        "baseline": noise.baseline,
        "pairs": share.asked,
        "differ": share.correct,
        "discordance": share.value,
        "discordance_interval": list(share.interval),
        "errors": share.errors,
        "lost": None if tax is None else tax.lost,
        "gained": None if tax is None else tax.gained,
        "tax": None if tax is None else tax.value,
        "interval": None if tax is None else list(tax.interval),
    }


def _sentence(check: Check) -> str:
    low, high = check.tax.interval
    span = f"tax {points(check.tax.value)} points (95%: {points(low)} to {points(high)})"
    return f"{check.verdict}: {check.reason}; {span}"


def _failed(check: Check) -> bool:
    return check.verdict == "fail"


def _xml(text: str) -> str:
    """Without the control characters that XML cannot hold."""
    return "".join(char for char in text if char.isprintable() or char in "\n\t")
