"""The one Config, and how files, environment and flags become it."""
