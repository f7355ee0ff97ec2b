"""The tasks, one a file: what is read, the condition, what is shown and scored."""
