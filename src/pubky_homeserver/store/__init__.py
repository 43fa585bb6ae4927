"""Where state lives: Redis, and its twin in memory."""
