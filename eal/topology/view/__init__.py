"""Views of a topology: text, JSON and SVG."""
