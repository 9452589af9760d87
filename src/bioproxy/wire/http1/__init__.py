"""HTTP/1.1 as values: bytes become requests, answers become bytes. Pure: no socket, no loop, no clock."""
