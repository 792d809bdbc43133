"""One class a needle family, grouped by file; the registry is haystacks/needles.py."""
