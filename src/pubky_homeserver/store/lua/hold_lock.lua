-- uses: lock
-- Hold a lock for a write that names these tokens. Returns nil, or the name of the refusal.
-- KEYS  account, lock
-- ARGV  tokens
return away_refusal(KEYS[1]) or lock_refusal(KEYS[2], ARGV[1])
