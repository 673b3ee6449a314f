"""The language server: what the editor package finds, over the Language Server Protocol (pygls)."""
