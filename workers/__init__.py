"""The process that executes commands: lanes that drain partitions in batches."""
