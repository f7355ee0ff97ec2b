"""A page in the browser that makes pictures; of this package gradio is imported here alone."""
