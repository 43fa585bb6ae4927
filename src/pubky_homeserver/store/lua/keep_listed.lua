-- uses: account log packed shelf copy
-- Keep a page of a list, or as much of it as one step takes. Returns how many of its entries are done, and 1 if all is;
-- or the name of the refusal.
-- KEYS  copy, entries, graces, shelf, shelves, bytes by origin
-- ARGV  name of the log, its first path, bound where the page ends (as ZRANGE BYLEX wants it), the path up to which it
--       goes, limit of entries of ours (at most 500), grace (us), pubky, our own key (empty: nothing is shelved), the time
--       (us, 7 bytes), then the entries, each as `entry_from` wants it
local log, first, stop, upto, limit, grace = unpack(ARGV, 1, 6)
local keys = {entries = KEYS[2], graces = KEYS[3]}
if ARGV[8] ~= '' then
  keys.lay = shelve_replaced
  keys.shelf = {shelf = KEYS[4], shelves = KEYS[5], used = KEYS[6], pubky = ARGV[7], origin = ARGV[8], now = ARGV[9]}
end
local HEAD, EACH = 9, 7  -- arguments before the entries, and of each of them

local copy = copy_at(KEYS[1], log)
if not copy then
  return 'NotFound'
end
if not copy.listed then
  return {(#ARGV - HEAD) / EACH, 1}
end

local start = above(copy.listed, first) and '(' .. copy.listed .. '\1' or '[' .. first
local members = redis.call('ZRANGE', keys.entries, start, stop, 'BYLEX', 'LIMIT', 0, limit)
local ours, done = {}, 1
for index, member in ipairs(members) do
  local head_at = member:find('\0', 1, true) + 1
  local path = member:sub(1, head_at - 2)
  ours[path] = entry_of(member, head_at)
  if index == tonumber(limit) then
    upto, done = path, 0
  end
end
if above(upto, copy.listed) then
  redis.call('HSET', KEYS[1], log .. '.listed', upto)
end

local taken = 0
for at = HEAD + 1, #ARGV, EACH do
  local new = entry_from(at)
  if done == 0 and above(new.path, upto) then
    break
  end
  if above(new.path, copy.listed) then
    replace(copy, keys, ours[new.path], new, nil, grace)
    ours[new.path] = nil
  end
  taken = taken + 1
end
for _, old in pairs(ours) do
  replace(copy, keys, old, nil, nil, grace)
end
keep_copy(KEYS[1], log, copy)
return {taken, done}
