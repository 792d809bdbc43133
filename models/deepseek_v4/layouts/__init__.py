"""Layouts in which a DeepSeek-V4 is published: transformers', the official one, and GGUF.

`configs` reads and writes `config.json`, `names` maps the names of tensors, `quantized` packs FP8
blocks and FP4 experts, `folders` reads a folder's tensors, `writing` writes them; `gguf_files`
writes one file for llama.cpp.
"""
