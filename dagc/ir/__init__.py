"""The intermediate representation: meshes, shardings, ops and graphs."""
