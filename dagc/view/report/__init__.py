"""Reports: terminal, Markdown, HTML page, notebook, comparison, rows."""
