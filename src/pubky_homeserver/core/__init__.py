"""What is true about accounts, paths, sessions and events: values and rules, no I/O, no clock."""
