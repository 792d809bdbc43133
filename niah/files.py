"""Files written whole or not at all, and mappings read from YAML or JSON."""
