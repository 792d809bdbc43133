"""Executors: they carry out jobs and give rows back."""
