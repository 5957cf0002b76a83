"""The demo's site: its login, and the sample tasks that its users start."""
