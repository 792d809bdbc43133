"""Text made by seeded generators, without end: one file a genre, chunk by chunk."""
