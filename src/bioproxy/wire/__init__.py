"""HTTP/1.1 over asyncio transports: the data plane, and nothing that knows what an LLM is."""
