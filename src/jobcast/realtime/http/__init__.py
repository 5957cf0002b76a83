"""The HTTP side of the hub: the state of a job as JSON, and its events as an event stream."""
