"""What an editor asks of a spec as it is typed: findings, meanings of names, completions and edits, each of a text and a place."""
