"""Haystack texts by name, and their token streams."""
