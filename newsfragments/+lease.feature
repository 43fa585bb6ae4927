A second process with `--role background` waits, and takes over when the first one stops or has been gone for 15 seconds.
