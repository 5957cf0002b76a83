"""The console's page: its files, and the headers of its server. It knows no login and no task."""
