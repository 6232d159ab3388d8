"""Where images lie as long as their job: a folder or a bucket."""
