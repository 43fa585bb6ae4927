A tutorial for two operators who mirror each other, and a page for the day when a host is down.
