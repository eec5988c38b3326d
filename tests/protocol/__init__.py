"""The protocol as an executable model: a state, the steps that may be taken in it, and a search through all of them.

It imports nothing of the product. Each step says in its docstring which lines of the product it stands for.
"""
