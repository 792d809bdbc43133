"""Bundled text (xz) with its index.json and PROVENANCE.md; build.py makes it from packages."""
