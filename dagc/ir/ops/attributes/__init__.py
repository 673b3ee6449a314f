"""The attributes of ops: a frozen record per kind, a file per family of kinds."""
