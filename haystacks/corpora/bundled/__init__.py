"""Bundled texts with their provenance, and the scripts that built them."""
