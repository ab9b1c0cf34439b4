"""How much of a thread is sent: windows over a log that keeps everything."""
