-- uses: signing
-- Returns whose a session or a bearer is that counts, and the rest of it; or nil.
-- KEYS  session or bearer
-- ARGV  beginning of the keys of accounts
local pubky, rest = session_at(KEYS[1], ARGV[1])
return pubky and {pubky, rest}
