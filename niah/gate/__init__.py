"""The gate: a verdict and an exit code for CI."""
