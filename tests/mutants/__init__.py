"""Mutants: this project with one of its defences taken out, and the checks that must notice."""
