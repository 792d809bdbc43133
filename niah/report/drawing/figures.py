"""Draws the frames of `niah.report.tables` as matplotlib figures."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from niah.report.drawing import parts
from niah.report.drawing.look import Look, cut_middle, fitted
from niah.report.drawing.palette import (
    LOSS_COLOURS,
    MUTED,
    OUTCOME_COLOURS,
    ArmStyle,
    arm_styles,
    kind_colours,
)

MOST_WITH_INTERVALS = 4
INTERVAL = ("low", "high")


def draw_recall(frame: pd.DataFrame, look: Look) -> Figure:
    """Recall by length, an interval at every point."""
    arms = parts.names(list(dict.fromkeys(frame["arm"])))
    figure = parts.canvas(2.6, list(arms.values()))
    axes = figure.subplots()
    parts.length_axis(axes, frame["length"], look, parts.panel_width(1))
    handles = [
        parts.line(axes, group["length"] * 2**shift, group, "recall", look.arms[str(arm)])
        for (arm, group), shift in _moved(frame, "arm", _octaves(frame))
    ]
    parts.recall_axis(axes, frame["low"].min())
    axes.set_ylabel("recall")
    parts.add_legend(figure, handles, list(arms.values()))
    return figure


def draw_tax(frame: pd.DataFrame, look: Look) -> Figure:
    """Tax by length in points; a line breaks where the tax is undefined."""
    return _draw_by_length(_in_points(frame), look, "tax", "points of recall lost")


def draw_logprob(frame: pd.DataFrame, look: Look) -> Figure:
    """By length, how much less likely the gold answer is, in nats."""
    ends = {end: frame[end].where(frame["decidable"], frame["difference"]) for end in INTERVAL}
    shown = frame.assign(**ends)
    return _draw_by_length(shown, look, "difference", "compressed − baseline, nats")


def _draw_by_length(frame: pd.DataFrame, look: Look, column: str, axis: str) -> Figure:
    """A line a comparison in the colour of its compressed arm, dashed where that arm has a line
    already."""
    titles = parts.names(list(dict.fromkeys(frame["comparison"])))
    figure = parts.canvas(2.6, list(titles.values()))
    axes = figure.subplots()
    axes.axhline(0, color=MUTED, linewidth=0.8)
    parts.length_axis(axes, frame["length"], look, parts.panel_width(1))
    handles, drawn = [], set()
    for (_, group), shift in _moved(frame, "comparison", _octaves(frame)):
        arm = str(group["arm"].iloc[0])
        again = {"linestyle": "--", "markerfacecolor": "none"} if arm in drawn else {}
        at = group["length"] * 2**shift
        handles.append(parts.line(axes, at, group, column, look.arms[arm], **again))
        drawn.add(arm)
    axes.set_ylabel(axis)
    parts.add_legend(figure, handles, list(titles.values()))
    return figure


def draw_texts(frame: pd.DataFrame, look: Look) -> Figure:
    """Tax in points by haystack, the most compressible above."""
    ratios = frame.drop_duplicates("haystack").set_index("haystack")["ratio"]
    ratios = ratios.sort_values(ascending=False)
    labels = {
        text: cut_middle(str(text), 28) + ("" if np.isnan(ratio) else f"  {ratio:,.1f}")
        for text, ratio in ratios.items()
    }
    return _draw_taxes(frame, look, "haystack", labels)


def draw_families(frame: pd.DataFrame, look: Look) -> Figure:
    """Tax in points by needle family."""
    defined = frame.groupby("family", sort=False)["defined"].any()
    labels = {
        family: cut_middle(str(family), 28) + ("" if known else "  undefined")
        for family, known in defined.items()
    }
    return _draw_taxes(frame, look, "family", labels)


def draw_outcomes(frame: pd.DataFrame, look: Look) -> Figure:
    """Share of wrong answers by kind of error, a panel an arm on one scale."""
    return _draw_kinds(frame, look, OUTCOME_COLOURS)


def draw_losses(frame: pd.DataFrame, look: Look) -> Figure:
    """Share of wrong answers by where the needle was lost, a panel an arm on one scale."""
    return _draw_kinds(frame, look, LOSS_COLOURS)


def draw_bytes(frame: pd.DataFrame, look: Look) -> Figure:
    """Bytes held by length, a line an arm, both axes logarithmic; below, what they consist of at
    the longest length that all arms reach."""
    arms = parts.names(list(dict.fromkeys(frame["arm"])))
    kinds = byte_kinds(frame)
    figure = parts.canvas(2.75 + 0.38 * len(arms), kinds)
    heights = [1.9, 0.25 + 0.38 * len(arms)]
    above, below = figure.subplots(2, 1, gridspec_kw={"height_ratios": heights})
    for arm, group in frame.groupby("arm", sort=False):
        mark = {**look.arms[str(arm)].drawn(), **parts.MARK}
        above.plot(group["length"], group["total"], **mark)
    parts.length_axis(above, frame["length"], look, parts.panel_width(1))
    parts.log_axis(above, frame["total"], byte_text)
    above.set_ylabel("cache held")
    _draw_held(below, frame, look, arms)
    parts.add_legend(figure, parts.swatches(kinds, kind_colours(kinds), MUTED), kinds)
    return figure


def draw_pareto(frame: pd.DataFrame, look: Look) -> Figure:
    """Recall against bytes per token, a panel for each length; the line joins the arms that no
    other arm is better than in both."""
    arms = parts.names(list(dict.fromkeys(frame["arm"])))
    lengths = sorted(set(frame["length"]))
    figure = parts.canvas(0.3 + 2.5 * -(-len(lengths) // 2), list(arms.values()))
    width, handles = parts.panel_width(len(lengths), 2), {}
    for axes, length in zip(parts.panels(figure, len(lengths), 2), lengths, strict=True):
        found = frame[frame["length"] == length]
        best = found[found["frontier"]].sort_values("bytes_per_token")
        at, recall = best["bytes_per_token"], best["recall"]
        axes.step(at, recall, where="post", color=MUTED, linewidth=0.9)
        for arm, group in found.groupby("arm", sort=False):
            mark = {"linestyle": "none", "elinewidth": 0.6}
            at, style = group["bytes_per_token"], look.arms[str(arm)]
            handles[arm] = parts.line(axes, at, group, "recall", style, **mark)
        parts.recall_axis(axes, frame["low"].min())
        parts.byte_axis(axes, frame["bytes_per_token"], width, byte_text)
        axes.set_title(f"{look.length(length)} tokens")
    figure.axes[0].set_ylabel("recall")
    parts.add_legend(figure, [handles[arm] for arm in arms], list(arms.values()))
    return figure


def draw_memories(frame: pd.DataFrame, look: Look) -> Figure:
    """A row a length: bytes that are gone, by kind, beside points of recall lost, by family."""
    arms = fitted(list(dict.fromkeys(frame["arm"])), 24, lines=1)
    lengths, families = sorted(set(frame["length"])), list(dict.fromkeys(frame["family"]))
    styles, moves = arm_styles(dict.fromkeys(families, "")), parts.shifts(len(families), 2.0)
    kinds = [kind for kind in _gone_kinds(frame) if (frame[kind] > 0).any()]
    colours, labels = kind_colours(kinds), [*kinds, *parts.names(families).values()]
    figure = parts.canvas(len(lengths) * (0.55 + 0.24 * len(arms)), labels)
    grid = figure.subplots(len(lengths), 2, squeeze=False, sharey=True)
    shown, marks = _in_points(frame), {}
    for (held, lost), length in zip(grid, lengths, strict=True):
        found = shown[shown["length"] == length]
        _draw_gone(held, found.drop_duplicates("arm").set_index("arm").reindex(list(arms)), colours)
        held.set_title(f"{look.length(length)} tokens")
        lost.sharex(grid[0][1])
        lost.axvline(0, color=MUTED, linewidth=0.8)
        for (family, style), shift in zip(styles.items(), moves, strict=True):
            of = found[found["family"] == family].set_index("arm").reindex(list(arms))
            marks[family] = _dots(lost, of, np.arange(len(arms)) + shift, style)
        lost.grid(axis="x")
    grid[0][0].set(ylim=(len(arms) - 0.5, -0.5))
    grid[0][0].set_yticks(range(len(arms)), list(arms.values()))
    grid[-1][1].set_xlabel("points of recall lost")
    handles = [*parts.swatches(kinds, colours, MUTED), *marks.values()]
    parts.add_legend(figure, handles, labels)
    return figure


def _gone_kinds(frame: pd.DataFrame) -> list[str]:
    """The kinds of bytes among the columns of `memories_by_length`."""
    names = list(frame)
    return names[names.index("length") + 1 : names.index("gone")]


def _draw_gone(axes: Axes, gone: pd.DataFrame, colours: Mapping[str, str]) -> None:
    """A bar a line of `gone`, one part a kind."""
    unit, size = byte_unit(gone["gone"].max())
    left = np.zeros(len(gone))
    for kind, colour in colours.items():
        part = gone[kind].clip(lower=0).fillna(0).to_numpy() / size
        axes.barh(range(len(gone)), part, 0.6, left, color=colour)
        left += part
    axes.set_xlim(0, 1.05 * left.max() or 1.0)
    axes.set_xlabel(f"{unit} gone")
    axes.grid(axis="x")


def draw_seconds(frame: pd.DataFrame, look: Look) -> Figure:
    """Median seconds of prefill and of decoding side by side; prefill's axis is logarithmic."""
    arms = parts.names(list(dict.fromkeys(frame["arm"])))
    figure = parts.canvas(2.5, list(arms.values()))
    titles = {"prefill_seconds": "Prefill of the prompt, s", "decode_seconds": "Decoding, s"}
    handles = []
    for axes, (column, title) in zip(parts.panels(figure, 2), titles.items(), strict=True):
        for arm, group in frame.groupby("arm", sort=False):
            mark = {**look.arms[str(arm)].drawn(), **parts.MARK}
            handles += axes.plot(group["length"], group[column], **mark)
        parts.length_axis(axes, frame["length"], look, parts.panel_width(2))
        axes.set_title(title)
        known = frame[column].dropna()
        if known.empty:
            axes.set_title(f"{title} (not measured)")
        elif column == "prefill_seconds" and (known > 0).all():
            parts.log_axis(axes, known, seconds_text)
        else:
            axes.set_ylim(0, 1.1 * known.max() or 1.0)
    parts.add_legend(figure, handles[: len(arms)], list(arms.values()))
    return figure


def draw_phases(frame: pd.DataFrame, look: Look) -> Figure:
    """Recall by phase, a panel each: a residue below the others is what a round grid misses.
    More arms than MOST_WITH_INTERVALS go without intervals, which would cover everything."""
    arms = parts.names([arm for arm in look.arms if arm in set(frame["arm"])])
    frame = frame if len(arms) <= MOST_WITH_INTERVALS else _without_intervals(frame)
    phases = list(dict.fromkeys(frame["phase"]))
    figure = parts.canvas(0.3 + 2.1 * -(-len(phases) // 2), list(arms.values()))
    handles = {}
    for axes, phase in zip(parts.panels(figure, len(phases), 2, sharey=True), phases, strict=True):
        found = frame[frame["phase"] == phase]
        for (arm, group), shift in _moved(found, "arm", found["residue"]):
            at = group["residue"] + shift
            handles[arm] = parts.line(axes, at, group, "recall", look.arms[str(arm)])
        _residue_axis(axes, sorted(set(found["residue"])))
        axes.set_title(phase)
        parts.recall_axis(axes, frame["low"].min())
    parts.add_legend(figure, [handles[arm] for arm in arms], list(arms.values()))
    return figure


def byte_unit(largest: float) -> tuple[str, float]:
    for unit, size in (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10)):
        if largest >= size:
            return unit, size
    return "bytes", 1.0


def byte_text(held: float) -> str:
    unit, size = byte_unit(held)
    return f"{held / size:,.3g} {unit}"


def seconds_text(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def _moved(
    frame: pd.DataFrame, by: str, places: pd.Series
) -> list[tuple[tuple[object, pd.DataFrame], float]]:
    """Groups with the shift that keeps their intervals from covering each other."""
    groups = list(frame.groupby(by, sort=False))
    apart = np.diff(sorted(set(places)))
    moves = parts.shifts(len(groups), float(apart.min()) if len(apart) else 1.0)
    return list(zip(groups, map(float, moves), strict=True))


def _octaves(frame: pd.DataFrame) -> pd.Series:
    """Lengths as places on a logarithmic axis, none more than an octave from the next."""
    places = np.log2(sorted(set(frame["length"])))
    return pd.Series(np.append(places, places[-1] + 1))


def _without_intervals(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(low=frame["recall"], high=frame["recall"])


def _in_points(group: pd.DataFrame) -> pd.DataFrame:
    """Shares as points; none where the tax is undefined, no interval where streams are too few."""
    ends = {name: group[name].where(group["decidable"], group["tax"]) for name in INTERVAL}
    shares = {"tax": group["tax"], **ends}
    return group.assign(**{name: (100 * of).where(group["defined"]) for name, of in shares.items()})


def _draw_taxes(frame: pd.DataFrame, look: Look, by: str, labels: Mapping[Hashable, str]) -> Figure:
    """Tax with its interval in a line for each value of `by`, in the order of `labels`, an arm's
    points in its colour."""
    titles = parts.names(list(dict.fromkeys(frame["comparison"])))
    figure = parts.canvas(0.6 + 0.32 * len(labels), list(titles.values()))
    axes = figure.subplots()
    axes.axvline(0, color=MUTED, linewidth=0.8)
    places, handles = pd.Index(labels), []
    for (_, group), shift in _moved(frame, "comparison", pd.Series(range(len(labels)))):
        style, shown = look.arms[str(group["arm"].iloc[0])], _in_points(group)
        handles.append(_dots(axes, shown, places.get_indexer(group[by]) + 1.6 * shift, style))
    axes.set_yticks(range(len(labels)), list(labels.values()))
    axes.set(ylim=(len(labels) - 0.5, -0.5), xlabel="points of recall lost")
    axes.grid(axis="x")
    parts.add_legend(figure, handles, list(titles.values()))
    return figure


def _dots(axes: Axes, shown: pd.DataFrame, at: np.ndarray, style: ArmStyle) -> Any:
    """Taxes in points with their intervals, a line each."""
    below, above = shown["tax"] - shown["low"], shown["high"] - shown["tax"]
    return axes.errorbar(
        shown["tax"],
        at,
        xerr=np.clip([below, above], 0, None),
        color=style.colour,
        marker=style.marker,
        markersize=4,
        elinewidth=0.9,
        linestyle="none",
    )


def _draw_kinds(frame: pd.DataFrame, look: Look, colours: Mapping[str, str]) -> Figure:
    arms = list(dict.fromkeys(frame["arm"]))
    left_out = ("arm", "length", "asked", "exact")
    kinds = [kind for kind in frame if kind not in left_out and frame[kind].any()]
    labels = [kind.replace("_", " ") for kind in kinds]
    figure = parts.canvas(0.35 + 2.05 * -(-len(arms) // parts.PANELS), labels)
    width = parts.panel_width(len(arms))
    titles = fitted(arms, int(width / parts.LETTER))
    for axes, arm in zip(parts.panels(figure, len(arms), sharey=True), arms, strict=True):
        found = frame[frame["arm"] == arm]
        shares = found[kinds].mul(100 / found["asked"], axis=0)
        parts.stack(axes, shares, kinds, colours, MUTED)
        parts.length_bars(axes, list(found["length"]), look, width)
        axes.set_title(titles[arm])
    wrong = 100 * frame[kinds].sum(axis=1) / frame["asked"]
    figure.axes[0].set(ylabel="wrong, % of asked", ylim=(0, max(1.0, 1.05 * wrong.max())))
    parts.add_legend(figure, parts.swatches(kinds, colours, MUTED), labels)
    return figure


def byte_kinds(frame: pd.DataFrame) -> list[str]:
    """The kinds of cache of `bytes_by_length` of which an arm holds some."""
    kinds = [name for name in frame if name not in ("arm", "length", "total")]
    return [str(kind) for kind in kinds if frame[kind].any()]


def _draw_held(axes: Axes, frame: pd.DataFrame, look: Look, arms: Mapping[str, str]) -> None:
    """A bar an arm, its name and the mark of its line above it."""
    shared = set.intersection(*(set(group["length"]) for _, group in frame.groupby("arm")))
    at = max(shared or frame["length"])
    held = frame[frame["length"] == at].set_index("arm").reindex(list(arms)).fillna(0)
    unit, size = byte_unit(held["total"].max())
    left = np.zeros(len(held))
    for kind, colour in kind_colours(byte_kinds(frame)).items():
        axes.barh(range(len(held)), held[kind] / size, 0.4, left, color=colour)
        left += (held[kind] / size).to_numpy()
    for place, (arm, label) in enumerate(arms.items()):
        style = look.arms[arm]
        axes.plot([0], [place - 0.42], style.marker, color=style.colour, ms=4, clip_on=False)
        axes.annotate(
            cut_middle(label.replace("\n", " "), 60),
            (0, place - 0.42),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        ).set_in_layout(False)
    axes.set(ylim=(len(held) - 0.6, -0.8), yticks=[], xlabel=f"{unit} at {look.length(at)} tokens")
    axes.set_xlim(0)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)


def _residue_axis(axes: Axes, residues: Sequence[int]) -> None:
    labels = [str(residue) for residue in residues]
    shown = parts.thinned(residues, labels, parts.panel_width(2), 1.0)
    apart = int(np.diff(residues).min()) if len(residues) > 1 else 1
    axes.set_xticks([residues[index] for index in shown])
    axes.set_xlim(residues[0] - 0.6 * apart, residues[-1] + 0.6 * apart)
