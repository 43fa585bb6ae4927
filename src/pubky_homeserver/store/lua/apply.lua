-- uses: account log packed copy
-- Apply the next event of a log. Returns 1, or 0 if it is not the next; or the name of the refusal.
-- KEYS  copy, entries, log, graces
-- ARGV  name of the log, id, digest after the event, kind of event, beginning of the blobs' keys, grace (us), then the
--       entry as `entry_from` wants it; of a DEL only path and number count
-- While the list is read the files are as old as their page, so an event may lie before or after it: the entry's number
-- tells which. Paths that the list has not come to are left to it. The digest counts when it is whole.
local log, event, digest, kind, blobs, grace = unpack(ARGV, 1, 6)
local keys = {entries = KEYS[2], log = KEYS[3], graces = KEYS[4]}
kind = tonumber(kind)

local copy = copy_at(KEYS[1], log)
if not copy then
  return 'NotFound'
end
local new = entry_from(7)
local path, seq = new.path, new.seq
if not copy.seq or seq ~= copy.seq + 1 or tonumber(event) <= copy.event then
  return 0
end
local put = kind == PUT and new or nil
local old = entry_at(keys.entries, path)
if not copy.listed and digest_after(copy.digest, old, put) ~= digest then
  return 'DigestMismatch'
end

local function note()
  redis.call('XADD', keys.log, event .. '-0', 'e',
    pack(kind, digest, put and put.stat or '', seq, (put and put.type or '') .. path))
end

local function change()
  local is_older = old and number_of(old) > seq
  if not copy.listed or not (is_older or above(path, copy.listed)) then
    replace(copy, keys, old, put, blobs, grace)
  end
end

-- First what takes memory of a PUT, and what frees it of a DEL: Redis lets a script that has begun to write go on when
-- its memory is full.
if put then
  note()
  change()
else
  change()
  note()
end
keep_copy(KEYS[1], log, copy, log .. '.seq', whole(seq), log .. '.event', event)
if copy.listed then
  redis.call('HSET', KEYS[1], log .. '.told', digest)
end
return 1
