-- Paths between two bounds of a directory, without their records. Returns them; or 'DirectoryNotFound'.
-- KEYS  entries
-- ARGV  bounds where reading begins and ends (as ZRANGE BYLEX wants them), limit (at most 500), whether from the end
--       ('1'), whether shallow ('1'), the directory, bounds of all that lies below it
-- The bounds come from outside because Lua compares texts by the server's locale.
local start, stop, limit, reverse, shallow, directory, first, last = unpack(ARGV)
limit = tonumber(limit)

local function between(start, stop, count)
  if reverse == '1' then
    return redis.call('ZRANGE', KEYS[1], start, stop, 'BYLEX', 'REV', 'LIMIT', 0, count)
  end
  return redis.call('ZRANGE', KEYS[1], start, stop, 'BYLEX', 'LIMIT', 0, count)
end

local function path_of(member)
  return member:sub(1, member:find('\0', 1, true) - 1)
end

local found = {}
if limit > 0 and shallow ~= '1' then
  for index, member in ipairs(between(start, stop, limit)) do
    found[index] = path_of(member)
  end
end

-- Shallow: one step takes a run of files, or a folder whole. Runs grow while there are only files, so that a folder
-- costs one look and a thousand files cost few.
local run = 1
while shallow == '1' and #found < limit do
  local members = between(start, stop, math.min(run, limit - #found))
  if #members == 0 then
    break
  end
  run = math.min(run * 2, 64)
  start = '(' .. members[#members]
  for _, member in ipairs(members) do
    local path = path_of(member)
    local slash = path:find('/', #directory + 1, true)
    if slash then
      local folder = path:sub(1, slash)
      found[#found + 1] = folder
      -- Go on beyond the folder: `0` is the character after the slash.
      start = reverse == '1' and '(' .. folder or '[' .. folder:sub(1, -2) .. '0'
      run = 1
      break
    end
    found[#found + 1] = path
  end
end

if #found == 0 and not redis.call('ZRANGE', KEYS[1], first, last, 'BYLEX', 'LIMIT', 0, 1)[1] then
  return 'DirectoryNotFound'
end
return found
