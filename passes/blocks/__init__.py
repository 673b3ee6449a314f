"""From the blocks of the language to ops: names and sizes, expressions, and a function of the language each."""
