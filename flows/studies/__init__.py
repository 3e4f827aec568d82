"""What do the tables of a paper need? Experiments over many runs, each part kept as soon as it is done."""
