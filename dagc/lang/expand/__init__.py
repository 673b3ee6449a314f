"""From the blocks of the language to the model graph: names and sizes, expressions, one function per function of the language."""
