"""The front door: any client of the API, warm sockets behind it."""
