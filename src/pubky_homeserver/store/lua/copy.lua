-- A copy of another homeserver's account: what is known of it, and how its files change. Needs account.lua, log.lua and
-- packed.lua.

-- Whether one text lies above another, byte by byte: Lua compares as the locale says.
local function above(one, other)
  local place = 1
  while place <= #other and one:byte(place) == other:byte(place) do
    place = place + 1
  end
  return (one:byte(place) or -1) > (other:byte(place) or -1)
end

-- The copy at `key` with one of its logs ('pub' or 'priv'), or nil. `seq` is nil if the log has no position; `listed` is
-- the last path of the list that is being read, nil if none is.
local function copy_at(key, log)
  local facts = redis.call('HMGET', key, 'used', 'missing', log .. '.digest', log .. '.seq', log .. '.event',
    log .. '.listed', 'absent', 'names')
  if not facts[1] then
    return nil
  end
  return {
    used = tonumber(facts[1]),
    missing = tonumber(facts[2]),
    digest = facts[3],
    seq = tonumber(facts[4] or ''),
    event = tonumber(facts[5] or ''),
    listed = facts[6] or nil,
    absent = tonumber(facts[7] or 0),
    names = tonumber(facts[8] or 0),
  }
end

-- Note what has changed of a copy's files, and more fields.
local function keep_copy(key, log, copy, ...)
  redis.call('HSET', key, 'used', whole(copy.used), 'missing', whole(copy.missing), 'absent', whole(copy.absent),
    'names', whole(copy.names), log .. '.digest', copy.digest, ...)
end

-- A digest after one entry, or none, came in the place of another, or none.
local function digest_after(digest, old, new)
  digest = old and xor(digest, old.mark) or digest
  return new and xor(digest, new.mark) or digest
end

-- Count a file, or with `by` -1 one less. What is no file has a name without slash, and takes no room of its user's.
local function count(copy, entry, by)
  if (entry.path or entry.stem):sub(1, 1) ~= '/' then
    copy.missing = copy.missing + (entry.kind == NEITHER and by or 0)
    copy.names = math.max(copy.names + by, 0)  -- those that an account had are not counted when it becomes a copy
    return
  end
  copy.used = copy.used + by * (entry.length + OVERHEAD)
  if entry.kind == NEITHER then
    copy.missing = copy.missing + by
    copy.absent = copy.absent + by * entry.length
  end
end

-- An entry as the arguments from `at` on have it: path, mark, stat, type, number, kind, body.
local function entry_from(at)
  local path, mark, stat, content_type, seq, kind, body = unpack(ARGV, at, at + 6)
  local size = #stat - STAT
  return {
    path = path,
    mark = mark,
    stat = stat,
    type = content_type,
    seq = tonumber(seq),
    kind = tonumber(kind),
    body = body,
    hash = stat:sub(1, 32),
    length = size > 0 and struct.unpack('>I' .. size, stat, STAT + 1) or 0,
  }
end

-- Let a path hold a new entry, or none, where it held an old one, or none. A new one without body has that of the old
-- one if that is the same. Blobs that are not referred to any more get their grace. With `keys.shelf` a body that goes is
-- shelved, by `keys.lay`.
local function replace(copy, keys, old, new, blobs, grace)
  local member, blob = nil, nil
  if new then
    if new.kind == NEITHER and old and old.hash == new.hash and old.length == new.length then
      new.kind, new.body = old.kind, old.member:sub(body_at(old))
    end
    blob = new.kind == BLOB and new.body
    member = new.path .. '\0' .. pack(new.kind, new.mark, new.stat, new.seq, new.type .. new.body)
  end
  if old and old.member == member then
    return
  end
  copy.digest = digest_after(copy.digest, old, new)
  local is_shelved = keys.shelf and old and old.kind ~= NEITHER and not (new and old.hash == new.hash) and
    keys.lay(keys.shelf, old.member:match('^%Z+'), old, new)
  if old then
    remove(keys.entries, old)  -- before the new one, which may have the same stem
    count(copy, old, -1)
    if old.blob and old.blob ~= blob and not is_shelved then
      local path = old.member:match('^%Z+')
      retire(keys.graces, old.blob, grace, grace_name(keys.entries, path, old.hash))
    end
  end
  if new then
    redis.call('ZADD', keys.entries, 0, member)
    count(copy, new, 1)
    if blob and not (old and old.blob == blob) then
      redis.call('SADD', blobs .. string.format('%02x', blob:byte()), blob)
    end
  end
end
