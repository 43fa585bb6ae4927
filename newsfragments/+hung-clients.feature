Clients that hang hold nobody: there are as many bodies open as connections, and those that do not read cost no memory.
