"""The placed graph as a grid: a column a GPU, a row a step; selected, folded to a readable size, and drawn."""
