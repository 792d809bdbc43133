"""Load models, estimate costs, ask questions, resume."""
