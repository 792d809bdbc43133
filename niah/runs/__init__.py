"""A run's folder: rows in and out."""
