-- uses: lock account
-- The name of what would refuse a DELETE, conditions aside, or nil.
-- KEYS  account, entries, lock
-- ARGV  name of the log, path, tokens
local log, path, tokens = unpack(ARGV)
local account = account_at(KEYS[1], log)
if not account then
  return 'NotFound'
end
return delete_refusal(account, path, entry_at(KEYS[2], path), KEYS[3], tokens)
