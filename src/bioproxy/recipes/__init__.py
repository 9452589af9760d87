"""Recipes: how to start a model in a container or a virtual environment, as entries for `models:`.

`recipe.py` reads the YAML files beside it and makes an entry of one, `insert.py` writes an entry into a config file
whose comments and order stay, `preset.py` and `options.py` translate llama.cpp's router presets. `yaml_text.py` writes
what they all write. No image is built here: a recipe names one, and its settings become macros of the model, so that
the image stands in the config file. models/containers.py knows the containers that such entries start.
"""
