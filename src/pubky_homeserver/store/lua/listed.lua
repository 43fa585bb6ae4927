-- uses: account packed
-- Entries of a log without their bodies, and where it stands, at one moment. Returns nil if nobody here knows, else facts
-- and members.
-- KEYS  account, entries, copy
-- ARGV  bounds where reading begins and ends (as ZRANGE BYLEX wants them), limit (at most 500), the field of a copy that
--       says whether its list is whole, then fields of account or copy
local facts = redis.call('HMGET', KEYS[1], unpack(ARGV, 5))
if not facts[1] and redis.call('HEXISTS', KEYS[3], ARGV[4]) == 1 then
  facts = redis.call('HMGET', KEYS[3], unpack(ARGV, 5))
end
if not facts[1] then
  return nil
end
local members = redis.call('ZRANGE', KEYS[2], ARGV[1], ARGV[2], 'BYLEX', 'LIMIT', 0, ARGV[3])
for index, member in ipairs(members) do
  local entry = entry_of(member, member:find('\0', 1, true) + 1)
  if entry.kind ~= NEITHER then
    members[index] = member:sub(1, body_at(entry) - 1) .. (entry.blob or '')
  end
end
return {facts, members}
