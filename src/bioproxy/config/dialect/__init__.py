"""llama-swap's configuration, read as llama-swap reads it.

A config in llama-swap's dialect (camelCase, `models:` at the top) becomes a frozen `DialectConfig`. The order of the
steps is part of the format, because each step sees what the one before left:

    text ──${env.X}──> text ──parse──> tree        one file each           read.py
    trees ──merge──> tree                          files in their order    read.py
    tree ──macros, ${PORT}──> tree                 per model               macros.py
    tree ──decode──> DialectConfig                 types and defaults      decode.py, schema.py
    the same, settled                              what refers to what     settle.py, names.py, targets.py

`read` in `read.py` runs them. Everything wrong is collected in notes: llama-swap stops at the first mistake, bioproxy
reports all of them, in the same words and with file and line. Nothing here starts a process or opens
a connection; the disk is asked for one thing only, whether the activity file of `store` can be written.
"""
