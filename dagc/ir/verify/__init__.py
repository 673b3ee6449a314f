"""The verifier that runs after every pass."""
