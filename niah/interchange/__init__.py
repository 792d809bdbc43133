"""Checkpoints for other engines: a model's folder in their layouts, and answers to hold them to."""
