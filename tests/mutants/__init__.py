"""Mutation check of the verifier and of the numeric proof: placed graphs with one thing broken each."""
