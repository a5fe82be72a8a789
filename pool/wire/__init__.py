"""What travels: events, one lane's response cycle, the mirror of the server's memory. No I/O, no clock."""
