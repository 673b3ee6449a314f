"""The op set: what a kind of op is, computes, stores and moves."""
