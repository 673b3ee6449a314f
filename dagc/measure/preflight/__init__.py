"""Whether machines are what a spec says they are: what is found of them, and a verdict on each figure."""
