"""The placed graph as a grid: a column per GPU, a row per step; selected, folded to a readable size, and drawn."""
