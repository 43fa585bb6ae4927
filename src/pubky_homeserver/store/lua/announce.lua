-- uses: lock account log packed
-- Put a part of what came with an account into the feed. Returns 1 if that is done, else 0.
-- KEYS  account, entries, public log, private log, public feed, private feed, shard, wake, announcing, announced
-- ARGV  pubky, limit (at most 250), beginning of the private paths
-- The field `announce` says how far it is: 'pub <event id>' and 'priv <event id>' while what was removed is told from a
-- log, then 'files <path>'.
local pubky, limit, root = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local kinds = {pub = {log = KEYS[3], feed = KEYS[5]}, priv = {log = KEYS[4], feed = KEYS[6]}}

local announced, away = unpack(redis.call('HMGET', KEYS[1], 'announce', 'away'))
if not announced or away then
  redis.call('HDEL', KEYS[1], 'announce')
  redis.call('ZREM', KEYS[9], pubky)
  redis.call('DEL', KEYS[10])
  return 1
end

-- Where the reign of a log began.
local function first_of(log)
  local reigns = redis.call('HGET', KEYS[1], log .. '.reigns')
  return (struct.unpack('>I' .. REIGN - 16, reigns, #reigns - REIGN + 17))
end

local function tell(log, kind, stat, tail)
  local keys = {account = KEYS[1], log = kinds[log].log, feed = kinds[log].feed, shard = KEYS[7], wake = KEYS[8]}
  return append(keys, log, account_at(KEYS[1], log), 0, kind, {}, stat, tail)
end

-- The path of a packed DEL.
local function removed(event)
  return event:byte(1) < PUT * 64 and event:sub(1 + 16 + event:byte(1) % 8 + 1)
end

local function tell_removed(log, after)
  local first, done = first_of(log), 0
  local events = redis.call('XRANGE', kinds[log].log, '(' .. after .. '-0', '+', 'COUNT', limit)
  for _, event in ipairs(events) do
    local packed = event[2][2]
    if seq_of(packed) >= first then
      return done, true
    end
    local path = removed(packed)
    local is_gone = path and path:sub(1, 1) == '/' and not entry_at(KEYS[2], path)
    if is_gone and redis.call('SADD', KEYS[10], path) == 1 then
      tell(log, DEL, '', path)
    end
    done, after = done + 1, event[1]:match('^%d+')
    redis.call('HSET', KEYS[1], 'announce', log .. ' ' .. after)
  end
  return done, #events < limit
end

local function tell_files(after)
  local bound = after == '' and '[/' or '(' .. after .. '\1'
  local members = redis.call('ZRANGE', KEYS[2], bound, '+', 'BYLEX', 'LIMIT', 0, limit)
  for _, member in ipairs(members) do
    local head_at = member:find('\0', 1, true) + 1
    local entry, path = entry_of(member, head_at), member:sub(1, head_at - 2)
    local log = path:sub(1, #root) == root and 'priv' or 'pub'
    if path:sub(1, 1) == '/' and number_of(entry) < first_of(log) then
      local stat = member:sub(head_at + 17, #entry.stem - entry.digits)
      local content_type = member:sub(#entry.stem + 1, body_at(entry) - 1)
      local body = member:sub(body_at(entry))
      local seq = tell(log, PUT, stat, content_type .. path)[2]
      remove(KEYS[2], entry)
      redis.call('ZADD', KEYS[2], 0, path .. '\0' .. pack(entry.kind, entry.mark, stat, seq, content_type .. body))
    end
    redis.call('HSET', KEYS[1], 'announce', 'files ' .. path)
  end
  return #members < limit
end

local what, after = announced:match('^(%a+) (.*)$')
if what == 'files' then
  if not tell_files(after) then
    return 0
  end
  redis.call('HDEL', KEYS[1], 'announce')
  redis.call('ZREM', KEYS[9], pubky)
  redis.call('DEL', KEYS[10])
  return 1
end
local _, is_over = tell_removed(what, after)
if is_over then
  redis.call('HSET', KEYS[1], 'announce', what == 'pub' and 'priv 0' or 'files ')
end
return 0
