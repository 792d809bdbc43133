"""DeepSeek-V3.2's attention in the trunk of DeepSeek-V4, as arms of the same nano family.

MLA (multi-head latent attention, DeepSeek-V2, arXiv 2405.04434, section 2.1) attends to every
token through a latent. DSA (arXiv 2512.02556, section 2.1) attends to the tokens that a lightning
indexer selects. Read in the order: cache, latent, indexer, sparse, model.
"""
