"""Hypothesis strategies for what the planner takes."""

from hypothesis import strategies as st

from niah.sweep.stream_packing import Item


@st.composite
def items(draw: st.DrawFn) -> Item:
    """A question of 64 to 4096 tokens whose pieces fit its context with room to spare."""
    length = draw(st.integers(64, 4096))
    cut = length - draw(st.integers(8, 24))
    sizes = tuple(draw(st.lists(st.integers(1, min(30, cut // 8)), max_size=4)))
    num_ordered = draw(st.integers(min(1, len(sizes)), len(sizes)))
    fits = cut // 128 > len(sizes)  # each piece may need a block of its own to meet its phase
    modulus = draw(st.sampled_from((1, 4, 128) if fits else (1, 4)))
    wanted = sorted(draw(st.integers(0, cut - size)) for size in sizes[:num_ordered])
    anywhere = [draw(st.integers(0, cut - size)) for size in sizes[num_ordered:]]
    in_order = draw(st.booleans())
    claims = draw(st.frozensets(st.sampled_from("abcdefgh"), max_size=2))
    return Item(length, cut, sizes, (*wanted, *anywhere), num_ordered, modulus, in_order, claims)


grids = st.lists(items(), min_size=1, max_size=40)
shares = st.floats(0.005, 0.5)

FAMILIES = (
    *("single_number", "single_uuid", "multi_key", "multi_value", "multi_query"),
    *("variable_value", "uuid_chain", "latent_association", "nth_ask", "contract_clause"),
)
PHASES = (
    None,
    {"modulus": 4, "residues": [1, 3]},
    {"modulus": 128, "residues": [0, 127]},
)

sweeps = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32),
        "layout": st.sampled_from(("stream", "isolated")),
        "families": st.lists(st.sampled_from(FAMILIES), min_size=1, max_size=2, unique=True),
        "lengths": st.lists(st.integers(1200, 4000), min_size=1, max_size=3, unique=True),
        "depths": st.lists(st.floats(0, 1), min_size=1, max_size=3, unique=True),
        "repeats": st.integers(1, 2),
        "max_needle_share": st.floats(0.01, 0.3),
        "templates": st.sampled_from((["trained"], ["trained", "unseen"])),
        "length_phase": st.sampled_from((None, {"modulus": 4}, {"modulus": 128, "residues": [5]})),
        "needle_phase": st.sampled_from(PHASES),
        "controls": st.sampled_from(([], ["no_needle"], ["no_needle", "question_only"])),
    }
)
