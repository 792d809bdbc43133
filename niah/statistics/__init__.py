"""Intervals, paired comparisons, slices and power."""
