The records of users are published again every four hours, unchanged, at relays and on the DHT; the newest one of each user is kept in Redis, and what failed is tried again every few minutes.
