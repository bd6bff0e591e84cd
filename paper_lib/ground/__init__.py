"""What every room stands on: a mistake, a file, a job, a table, a name."""
