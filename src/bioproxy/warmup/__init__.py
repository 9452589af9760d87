"""Background work that makes templates resident before anyone asks."""
