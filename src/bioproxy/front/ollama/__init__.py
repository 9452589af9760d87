"""Ollama's API: its requests become those of the road, and the road's answers become Ollama's."""
