"""Says which blocks and windows of a model a sweep meets at one place only.

A cache that works in blocks of 4 or windows of 128 may fail at some lengths modulo 4 or 128 and at
no other (vllm#55927: wrong only where the length is 3 modulo 4). Round lengths never show it.
"""

from collections.abc import Iterator, Mapping

from niah.sweep.trials import Plan

BLOCKS = (
    *("sliding_window", "csa_ratio", "hca_ratio", "compress_ratio"),
    *("block_size", "attention_chunk_size"),
)
"""Names in what a model says of itself whose values are counts of tokens in a block or window."""


def residue_notes(plan: Plan, models: Mapping[str, Mapping[str, object]]) -> list[str]:
    """A line for each block size of which every prompt's length has the same residue.

    `models`: by arm, what each model says of itself (`describe`).
    """
    blocks: dict[int, list[str]] = {}
    for arm, described in models.items():
        for size in sorted(set(block_sizes(described))):
            blocks.setdefault(size, []).append(arm)
    lengths = {trial.length for _, trial in plan.trials() if trial.control is None}
    single = [size for size in sorted(blocks) if len({n % size for n in lengths}) == 1]
    return [
        f"every length is {min(lengths) % size} modulo {size}, a block or window of "
        f"{', '.join(blocks[size])}: a fault at another residue stays unseen; "
        f"length_phase: {{modulus: {size}, residues: {wanted_residues(size)}}} visits more"
        for size in single
        if not any(other > size and other % size == 0 for other in single)  # it says as much
    ]


def wanted_residues(size: int) -> list[int]:
    """The ends of a block and, of a long one, what meets every residue modulo 4 too."""
    return list(range(size)) if size <= 4 else sorted({0, 1, 2, size - 1})


def block_sizes(described: object) -> Iterator[int]:
    """Tokens in a block or window, as far as a model's description names them."""
    if not isinstance(described, Mapping):
        return
    for name, value in described.items():
        if name in BLOCKS and type(value) is int and value > 1:
            yield value
        yield from block_sizes(value)
