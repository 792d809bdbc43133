"""Language models with an explicit cache: token ids in, token ids out."""
