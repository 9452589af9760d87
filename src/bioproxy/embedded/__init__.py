"""llama.cpp from a wheel as a program of its own, and the models that bioproxy writes itself. See docs/engine.md."""
