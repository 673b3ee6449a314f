"""The report as one HTML file that needs nothing else: figures laid out here, a small script of its own."""
