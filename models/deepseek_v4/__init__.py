"""DeepSeek-V4 (arXiv 2606.19348) for inference with its compressed KV cache, and for training.

Read in the order of the forward pass: config, model, mhc, attention, parts, compressor, indexer,
moe; then cache (what a session keeps) and weights (names, files).
"""
