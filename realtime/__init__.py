"""Process 2: the Socket.IO process."""
