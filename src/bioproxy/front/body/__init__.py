"""What a request body says, and what the configuration changes in it. Pure."""
