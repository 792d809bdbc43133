"""Needle families: seeded facts with their sentences, questions and answers."""
