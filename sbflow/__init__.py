"""sbflow."""
