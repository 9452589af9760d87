"""The prompt-cache APIs of OpenAI and Anthropic: what their fields ask for, and what the answer says of it. Pure."""
