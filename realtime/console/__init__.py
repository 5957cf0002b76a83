"""The console: a page that starts and shows jobs. It is enabled in `jobcast demo` only."""
