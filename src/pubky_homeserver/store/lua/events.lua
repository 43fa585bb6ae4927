-- Events of all accounts after an id, ascending. Returns id, pubky, packed event of each, one after the other.
-- KEYS  numbers, then for each log: feed, beginning of the accounts' keys
-- ARGV  id, limit (at most 500)
local after, limit = '(' .. ARGV[1] .. '-0', tonumber(ARGV[2])

local pointers = {}
for at = 2, #KEYS, 2 do
  for _, pointer in ipairs(redis.call('XRANGE', KEYS[at], after, '+', 'COUNT', limit)) do
    local id = pointer[1]:sub(1, -3)
    pointers[#pointers + 1] = {id = id, at = tonumber(id), number = pointer[2][2], logs = KEYS[at + 1]}
  end
end
if #KEYS > 3 then
  table.sort(pointers, function(one, other) return one.at < other.at end)
end

-- The pointers of an account in this page are all its events between the first and the last of them: one read each.
local pubkys, ranges = {}, {}
for index = 1, math.min(limit, #pointers) do
  local pointer = pointers[index]
  local number = pointer.number
  pubkys[number] = pubkys[number] or redis.call('HGET', KEYS[1], number)
  pointer.log = pointer.logs .. pubkys[number]
  local range = ranges[pointer.log] or {first = pointer.id, count = 0}
  range.last = pointer.id
  range.count = range.count + 1
  ranges[pointer.log] = range
end
local packed = {}
for log, range in pairs(ranges) do
  packed[log] = {}
  for _, event in ipairs(redis.call('XRANGE', log, range.first, range.last, 'COUNT', range.count)) do
    packed[log][event[1]] = event[2][2]
  end
end

local found = {}
for index = 1, math.min(limit, #pointers) do
  local pointer = pointers[index]
  local event = packed[pointer.log][pointer.id .. '-0']
  if event then
    found[#found + 1] = pointer.id
    found[#found + 1] = pubkys[pointer.number]
    found[#found + 1] = event
  end
end
return found
