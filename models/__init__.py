"""Language models with an explicit cache: token ids in, token ids out.

Knows nothing about haystacks, needles or experiments.
"""
