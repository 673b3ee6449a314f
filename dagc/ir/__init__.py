"""The intermediate representation: meshes, shardings, ops and graphs. Imports nothing of the passes."""
