"""Cache bytes and FLOPs computed from an architecture."""
