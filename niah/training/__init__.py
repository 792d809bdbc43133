"""Training of the nano models."""
