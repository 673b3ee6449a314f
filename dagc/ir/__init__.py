"""The intermediate representation: meshes, layouts, ops and graphs, their text and their verifier."""
