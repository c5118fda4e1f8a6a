"""Text forms of names and dtypes."""
