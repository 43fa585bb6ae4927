-- uses: account
-- Entries without body. Returns the last member that was looked at (nil: there are no more), then those that were found.
-- KEYS  entries
-- ARGV  bound where reading begins, limit of what is looked at (at most 500), limit of what is found
local look, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
local members = redis.call('ZRANGE', KEYS[1], ARGV[1], '+', 'BYLEX', 'LIMIT', 0, look)
local found, last = {}, #members == look and members[look]
for _, member in ipairs(members) do
  if #found < limit and entry_of(member, member:find('\0', 1, true) + 1).kind == NEITHER then
    found[#found + 1] = member
  end
end
return {last and last:match('^%Z+'), unpack(found)}
