-- uses: lock account
-- The name of what would refuse a PUT whatever its body is, or nil.
-- KEYS  account, entries, lock
-- ARGV  name of the log, path, length (empty: not announced), default limit, tokens
local log, path, length, default, tokens = unpack(ARGV)
local account = account_at(KEYS[1], log)
if not account then
  return 'NotFound'
end
local entry = entry_at(KEYS[2], path)
local growth = nil
if length ~= '' then
  growth = entry and length - entry.length or length + OVERHEAD
end
return put_refusal(account, KEYS[2], path, entry, default, growth, KEYS[3], tokens)
