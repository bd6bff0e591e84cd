"""What is run: tasks, settings, plans and profiles."""
