"""Numbers that a document in prose claims, beside what the plan of a spec has for each."""
