"""From the blocks of the language to the model graph: names and sizes, expressions, and a function of the language each."""
