"""Generated texts: endless and seeded."""
