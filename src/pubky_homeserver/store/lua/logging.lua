-- Events of a log above a bound (as XRANGE wants it), a number of them at most, and the entries that the newest of each
-- path has written if their bodies lie in them.
local function logged(key, entries, bound, limit)
  local log, members, seen = redis.call('XRANGE', key, bound, '+', 'COUNT', limit), {}, {}
  for index = #log, 1, -1 do
    local event = log[index][2][2]
    local path = path_of(event)
    local entry = not seen[path] and event:byte(1) >= PUT * 64 and entry_at(entries, path)
    seen[path] = true
    if entry and entry.kind ~= BLOB and entry.kind ~= NEITHER and number_of(entry) == seq_of(event) then
      members[#members + 1] = entry.member
    end
  end
  return log, members
end
