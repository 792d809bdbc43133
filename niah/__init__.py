"""The experiment: plans sweeps, runs arms over the same prompts, scores, compares and gates."""
