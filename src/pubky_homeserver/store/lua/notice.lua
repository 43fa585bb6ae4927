-- What the public log of an account says about its being taken down. Needs account.lua and log.lua.

-- Let the log of an account that is open here say so, or not; `notice` is the entry that says it: path, mark, kind, stat,
-- type.
local function post(keys, is_down, notice)
  local path, mark, kind, stat, content_type = unpack(notice)
  local account, old = account_at(keys.account, 'pub'), entry_at(keys.entries, path)
  if is_down and not old then
    redis.call('ZADD', keys.entries, 0, path .. '\0' .. pack(tonumber(kind), mark, stat, account.seq + 1, content_type))
    append(keys, 'pub', account, 0, PUT, {mark}, stat, content_type .. path)
  elseif old and not is_down then
    remove(keys.entries, old)
    if old.kind == NEITHER then
      redis.call('HINCRBY', keys.account, 'missing', -1)
    end
    append(keys, 'pub', account, 0, DEL, {old.mark}, '', path)
  end
end
