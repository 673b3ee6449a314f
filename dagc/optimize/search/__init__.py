"""The best plan of a spec that leaves choices open, with a certificate of what was left out and why."""
