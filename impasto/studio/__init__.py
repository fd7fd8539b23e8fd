"""The studio: the whole of it in a browser, on one's own machine. A server for this machine alone, and a client for Python."""
