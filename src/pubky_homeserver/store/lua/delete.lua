-- uses: lock account log
-- Remove the entry at a path. Returns event id, number in the log and digest; or the name of the refusal.
-- KEYS  account, entries, log, feed, shard, graces, wake, lock
-- ARGV  name of the log, path, wanted hashes, grace (us), tokens
local log, path, wanted, grace, tokens = unpack(ARGV)
local keys = {account = KEYS[1], entries = KEYS[2], log = KEYS[3], feed = KEYS[4], shard = KEYS[5], wake = KEYS[7]}
local graces = KEYS[6]

local account = account_at(keys.account, log)
if not account then
  return 'NotFound'
end
local old = entry_at(keys.entries, path)
local refusal = delete_refusal(account, path, old, KEYS[8], tokens)
if refusal then
  return refusal
end
if not matches(old, wanted) then
  return 'PreconditionFailed'
end

-- First what frees memory: Redis lets a script that has begun to write go on when its memory is full.
remove(keys.entries, old)
if old.kind == NEITHER then
  redis.call('HINCRBY', keys.account, 'missing', -1)
  redis.call('HINCRBY', keys.account, 'absent', 0 - old.length)
end
if old.blob then
  retire(graces, old.blob, grace, grace_name(keys.entries, path, old.hash))
end
return append(keys, log, account, -old.length - OVERHEAD, DEL, {old.mark}, '', path)
