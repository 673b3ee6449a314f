"""The textual IR: `write` prints every graph, `read` reads it back equal, `implied` says what the text leaves out."""
