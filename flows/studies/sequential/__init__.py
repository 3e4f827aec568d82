"""What does stored text add to sequential models? `nightshift study sequential`: its section, its parts, its tables."""
