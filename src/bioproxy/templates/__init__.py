"""Prompt templates: parsing, files that change, and filling them into request bodies."""
