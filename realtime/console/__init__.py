"""The console: a page to start jobs on and to watch them. It runs in `jobcast demo` alone."""
