"""The journal of commands: the only room that writes the table `commands`."""
