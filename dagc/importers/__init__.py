"""Files of other programs, read only: placed graphs, recorded plans, Hugging Face configs."""
