"""Hypothesis strategies for what the planner takes."""

from hypothesis import strategies as st

from niah.pack import Item


@st.composite
def items(draw: st.DrawFn) -> Item:
    """A question of 64 to 4096 tokens whose pieces fit its context with room to spare."""
    length = draw(st.integers(64, 4096))
    cut = length - draw(st.integers(8, 24))
    sizes = tuple(draw(st.lists(st.integers(1, min(30, cut // 8)), max_size=4)))
    num_ordered = draw(st.integers(min(1, len(sizes)), len(sizes)))
    modulus = draw(st.sampled_from((1, 4)))
    wanted = sorted(draw(st.integers(0, cut - size)) for size in sizes[:num_ordered])
    anywhere = [draw(st.integers(0, cut - size)) for size in sizes[num_ordered:]]
    return Item(length, cut, sizes, (*wanted, *anywhere), num_ordered, modulus)


grids = st.lists(items(), min_size=1, max_size=40)
shares = st.floats(0.005, 0.5)

sweeps = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32),
        "layout": st.sampled_from(("stream", "isolated")),
        "lengths": st.lists(st.integers(256, 3000), min_size=1, max_size=4, unique=True),
        "depths": st.lists(st.floats(0, 1), min_size=1, max_size=4, unique=True),
        "repeats": st.integers(1, 2),
        "max_needle_share": st.floats(0.01, 0.3),
        "templates": st.sampled_from((["trained"], ["trained", "unseen"])),
        "length_phase": st.sampled_from((None, {"modulus": 4}, {"modulus": 128, "residues": [5]})),
        "needle_phase": st.sampled_from((None, {"modulus": 4, "residues": [1, 3]})),
        "controls": st.sampled_from(([], ["no_needle"], ["no_needle", "question_only"])),
    }
)
