"""Values of constant expressions, with units checked."""
