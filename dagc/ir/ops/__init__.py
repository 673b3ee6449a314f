"""The op set: what a kind of op is, computes, holds and moves."""
