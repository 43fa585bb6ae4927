-- The conflict shelf (`shelf.py`). Needs account.lua, log.lua and packed.lua.

-- The member of a shelf with an id, or nil.
local function thing_at(shelf, id)
  return redis.call('ZRANGE', shelf, '[' .. id .. '\0', '(' .. id .. '\1', 'BYLEX', 'LIMIT', 0, 1)[1]
end

-- A hash in hex digits.
local function hex(hash)
  return (hash:gsub('.', function(byte)
    return string.format('%02x', byte:byte())
  end))
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

-- Shelve the entry with which a copy's path differs from its primary's, who has `new` there, or nothing. `shelf`: the
-- keys, and `pubky`, `origin`, `now`. False if that is there already.
local function shelve_replaced(shelf, path, old, new)
  local packed = old.member:sub(#path + 2)
  local ours = new and pack(NEITHER, new.mark, new.stat, new.seq, new.type) or ''
  local written = packed:sub(1 + 16 + 32 + 1, 1 + 16 + STAT)
  local thing = 'r' .. shelf.origin .. shelf.now .. written .. struct.pack('>I4I4', #packed, #ours) .. packed .. ours
  local said = redis.sha1hex(whole(number_of(old)) .. ' ' .. hex(old.hash) .. ' ' .. path)
  local id = redis.sha1hex(path):sub(1, OF_PATH) .. said:sub(OF_PATH + 1)
  local size = old.length + (new and new.length or 0) + OVERHEAD
  return lay(shelf, shelf.pubky, id, thing .. path, shelf.origin, whole(size))
end
