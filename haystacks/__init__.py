"""Text in, token ids out: corpora, tokenizers, needles and planting.

Knows nothing about models or experiments, and never imports torch.
"""
