"""What operators run and read: health, status, metrics, backups, the worker."""
