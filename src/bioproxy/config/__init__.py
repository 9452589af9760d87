"""The one Config, and how files, environment and flags become it.

    files.py                   which files count, and their texts
      json_tree, yaml_tree     a text becomes a tree whose values remember their line (tree.py)
        dialect/               llama-swap's dialect: variables, merged files, macros, its keys
        convert.py             the tree becomes values of the schema's types; mistakes become notes (notes.py)
          layers.py            a layer each for files, environment and flags; the later one wins
            load.py            key files read, one engine chosen, the whole checked (check.py): `Loaded`

A key is declared in schema.py, and only there; keys.py is the table of them. What the program reads while it runs is
settings.py. Imports point from load.py down to tree.py and schema.py, which an import contract holds.
"""
