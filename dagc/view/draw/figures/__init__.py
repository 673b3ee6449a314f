"""The figures of a plan, laid out and drawn here as SVG: parts of the page, and files of their own."""
