Everything is kept in Redis 6.2 or newer: entries, events and small files lie there durably, and every write is one atomic step.
