-- What every write does: an old entry goes; usage, the number and digest of its log, an event and its pointer, a wake-up.
-- Needs account.lua.

-- The XOR of two texts of 16 bytes.
local function xor(one, other)
  local a, b, c, d = struct.unpack('>I4I4I4I4', one)
  local e, f, g, h = struct.unpack('>I4I4I4I4', other)
  return struct.pack('>i4i4i4i4', bit.bxor(a, e), bit.bxor(b, f), bit.bxor(c, g), bit.bxor(d, h))
end

-- Microseconds since the Unix epoch by Redis' clock.
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Remove an entry. Redis notes in its log what a script does: to name a large body would cost as much as to write it,
-- so that on a full disk deleting would need room.
local function remove(entries, entry)
  local stem = entry.stem
  if #entry.member < 2 * #stem then
    redis.call('ZREM', entries, entry.member)
    return
  end
  local short = stem:match('^(.-)\255*$')
  local beyond = short:sub(1, -2) .. string.char(short:byte(-1) + 1)
  redis.call('ZREMRANGEBYLEX', entries, '[' .. stem, '(' .. beyond)
end

-- How a body in its grace is found again: by account, path and hash. `entries` is the key of the account's files.
local function grace_name(entries, path, hash)
  return redis.sha1hex(entries .. '\0' .. path .. '\0' .. hash)
end

-- Begin the grace of a blob that no entry refers to any more. `grace` in microseconds; `name` as above, or nil.
local function retire(graces, blob, grace, name)
  redis.call('ZADD', graces, whole(now() + grace), blob)
  if name then
    redis.call('HSET', graces .. ':named', name, blob, blob, name)
  end
end

-- A number in a log as bytes.
local function pack_seq(seq)
  local size = 1
  while seq >= 256 ^ size do
    size = size + 1
  end
  return struct.pack('>I' .. size, seq)
end

-- A packed record (`packing.py`): `kind` of entry or event, mark or digest, stat, number, and what comes after it.
local function pack(kind, mark, stat, seq, tail)
  local number = pack_seq(seq)
  local head = kind * 64 + math.max(#stat - STAT, 0) * 8 + #number
  return string.char(head) .. mark .. stat .. number .. tail
end

-- Append an event. `growth`: bytes that the account uses more. `marks`: what enters and leaves the digest. `stat`,
-- `tail`: what the packed event says before and after its number. Returns event id, number in the log and digest.
local function append(keys, log, account, growth, kind, marks, stat, tail)
  local digest = account.digest
  for _, mark in ipairs(marks) do
    digest = xor(digest, mark)
  end
  local seq = account.seq + 1
  local last = redis.call('HGET', keys.shard, 'event') or 0
  local id = math.max(last + 1, now())
  local event = whole(id)
  local stream = event .. '-0'

  growth = math.max(growth, -account.used)
  redis.call('HSET', keys.account, 'used', whole(account.used + growth),
    log .. '.seq', whole(seq), log .. '.event', event, log .. '.digest', digest)
  redis.call('HSET', keys.shard, 'event', event)
  redis.call('HINCRBY', keys.shard, 'used', whole(growth))
  redis.call('XADD', keys.log, stream, 'e', pack(kind, digest, stat, seq, tail))
  redis.call('XADD', keys.feed, stream, 'n', account.number)
  redis.call('PUBLISH', keys.wake, '')
  return {id, seq, digest}
end
