-- What a write asks of the account and of the path before it may happen. Needs lock.lua; reads only.

-- A whole number as text: tostring and .. make 1.7640000001235e+15 of an event id.
local function whole(number)
  return string.format('%.0f', number)
end

-- The account at `key` with one of its logs ('pub' or 'priv'), or nil.
local function account_at(key, log)
  local facts = redis.call('HMGET', key, 'number', 'disabled', 'used', 'limit', 'paths', log .. '.seq',
    log .. '.digest', 'away')
  if not facts[1] then
    return nil
  end
  return {
    number = facts[1],
    disabled = facts[2],
    used = tonumber(facts[3]),
    limit = facts[4],
    paths = facts[5],
    seq = tonumber(facts[6] or ''),
    digest = facts[7],
    away = facts[8],
  }
end

-- What a member of a sorted set of entries says; its packed entry begins at `head_at`. Its `stem` is all of it before
-- type and body: up to its number in the log, and so no other entry's.
local function entry_of(member, head_at)
  local head, mark, hash = struct.unpack('>Bc16c32', member, head_at)
  local kind, size = math.floor(head / 64), math.floor(head / 8) % 8
  local length = size > 0 and struct.unpack('>I' .. size, member, head_at + 1 + 16 + STAT) or 0
  local blob = kind == BLOB and member:sub(-16)
  local stem = member:sub(1, head_at + 16 + STAT + size + head % 8)
  return {
    member = member,
    stem = stem,
    mark = mark,
    hash = hash,
    length = length,
    digits = head % 8,
    kind = kind,
    blob = blob,
  }
end

-- The entry of a path in the sorted set `entries`, or nil.
local function entry_at(entries, path)
  local member = redis.call('ZRANGE', entries, '[' .. path .. '\0', '(' .. path .. '\1', 'BYLEX', 'LIMIT', 0, 1)[1]
  return member and entry_of(member, #path + 2) or nil
end

-- Whether `growth` more bytes are too many. `default` is the server's limit, empty for none.
local function is_full(account, default, growth)
  local limit = tonumber(account.limit or default)
  return limit and limit >= 0 and account.used + growth > limit
end

-- Whether the operator lets the account write to the path.
local function is_allowed(account, path)
  if not account.paths then
    return true
  end
  for scope in account.paths:gmatch('[^\n]+') do
    if scope == path or (scope:sub(-1) == '/' and path:sub(1, #scope) == scope) then
      return true
    end
  end
  return false
end

-- Whether a path would be a file and a folder at once: something lies below it, or one of its folders is a file.
local function collides(entries, path)
  if redis.call('ZRANGE', entries, '[' .. path .. '/', '(' .. path .. '0', 'BYLEX', 'LIMIT', 0, 1)[1] then
    return true
  end
  for slash in path:gmatch('()/') do
    if slash > 1 and entry_at(entries, path:sub(1, slash - 1)) then
      return true
    end
  end
  return false
end

-- Whether the entry is in the state that a write asks for. `wanted`: empty for any, '*' for any entry, or '=' and the
-- hashes of which one must be the entry's.
local function matches(entry, wanted)
  if wanted == '' then
    return true
  end
  if not entry then
    return false
  end
  if wanted == '*' then
    return true
  end
  for at = 2, #wanted, 32 do
    if wanted:sub(at, at + 31) == entry.hash then
      return true
    end
  end
  return false
end

-- Everything that refuses a PUT before its body counts, in the protocol's order; nil if nothing does.
-- `growth`: bytes that the account would use more; nil if nobody announced the length. `lock` is the lock's key.
local function put_refusal(account, entries, path, entry, default, growth, lock, tokens)
  if account.away then
    return 'NotPrimary ' .. account.away
  end
  if account.disabled then
    return 'UserDisabled'
  end
  if growth and is_full(account, default, growth) then
    return 'QuotaExceeded'
  end
  local refusal = lock_refusal(lock, tokens)
  if refusal then
    return refusal
  end
  if not is_allowed(account, path) then
    return 'WriteNotAllowed'
  end
  if not entry and collides(entries, path) then
    return 'Collision'
  end
  return nil
end

-- Everything that refuses a DELETE, in the protocol's order; nil if nothing does.
local function delete_refusal(account, path, entry, lock, tokens)
  if account.away then
    return 'NotPrimary ' .. account.away
  end
  local refusal = lock_refusal(lock, tokens)
  if refusal then
    return refusal
  end
  if not entry then
    return 'NotFound'
  end
  if not is_allowed(account, path) then
    return 'WriteNotAllowed'
  end
  return nil
end
