-- uses: lock
-- Hold a lock for a write that names these tokens. Returns nil, or the name of the refusal.
-- KEYS  lock
-- ARGV  tokens
return lock_refusal(KEYS[1], ARGV[1])
