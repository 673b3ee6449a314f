"""What serving engines call things: options and rules by version."""
