-- The conflict shelf (`shelf.py`). Needs account.lua and log.lua.

-- The member of a shelf with an id, or nil.
local function thing_at(shelf, id)
  return redis.call('ZRANGE', shelf, '[' .. id .. '\0', '(' .. id .. '\1', 'BYLEX', 'LIMIT', 0, 1)[1]
end

-- Lay a packed thing on the shelf of an account; false if one with its id is there.
local function lay(keys, pubky, id, packed, origin, size)
  if thing_at(keys.shelf, id) then
    return false
  end
  redis.call('ZADD', keys.shelf, 0, id .. '\0' .. packed)
  redis.call('ZADD', keys.shelves, 0, pubky)
  redis.call('HINCRBY', keys.used, origin, size)
  return true
end
