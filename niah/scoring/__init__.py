"""Answer text to outcome."""
