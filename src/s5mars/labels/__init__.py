"""Labels from other tools and to them, and the label loop in the browser."""
