"""The way of a request: from a route to the last relayed byte."""
