"""Files of other programs read in: placed graphs, recorded plans, Hugging Face configs."""
