"""Text in, token ids out: corpora, tokenizers, needles and planting.

Imports no torch.
"""
