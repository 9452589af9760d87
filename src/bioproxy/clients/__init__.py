"""The programs that send requests: which one it is, what it asks beside its conversation, what is mended in prompts.

`rules.yaml` is what is shipped, in the form in which `clients` of a configuration adds to it. Pure.
"""
