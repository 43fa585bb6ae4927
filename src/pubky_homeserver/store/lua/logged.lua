-- uses: account packed
-- Events of a log above an id, and the entries that the newest of each path has written if their bodies lie in them.
-- Returns what XRANGE answers, and the members.
-- KEYS  log, entries
-- ARGV  bound where reading begins (as XRANGE wants it), limit (at most 500)
local log, members, seen = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2]), {}, {}
for index = #log, 1, -1 do
  local event = log[index][2][2]
  local path = path_of(event)
  local entry = not seen[path] and event:byte(1) >= PUT * 64 and entry_at(KEYS[2], path)
  seen[path] = true
  if entry and entry.kind ~= BLOB and entry.kind ~= NEITHER and number_of(entry) == seq_of(event) then
    members[#members + 1] = entry.member
  end
end
return {log, members}
