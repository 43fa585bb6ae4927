-- uses: account packed
-- The event of a log with a number, as XRANGE answers it; nil if it is not there.
-- KEYS  log
-- ARGV  number
-- Ids grow with the numbers: the ids between which the event must be are halved, and there are fewer than 2^53.
local wanted = tonumber(ARGV[1])
local NEAR = 16  -- events: most who ask are a few events behind the newest, which one look finds

local function look(command, from, to, count)
  local found = redis.call(command, KEYS[1], from, to, 'COUNT', count)
  local event = found[#found]
  if not event then
    return nil
  end
  return {reply = event, id = tonumber(event[1]:match('^%d+')), seq = seq_of(event[2][2])}
end

local newest = look('XREVRANGE', '+', '-', 1)
if not newest or wanted > newest.seq then
  return nil
end
local near = look('XREVRANGE', '+', '-', math.min(newest.seq - wanted + 1, NEAR))
if near.seq == wanted then
  return near.reply
end
local from, to = look('XRANGE', '-', '+', 1).id, newest.id
while from <= to do
  local middle = from + math.floor((to - from) / 2)
  local event = look('XRANGE', whole(middle), whole(to), 1)
  if event and event.seq == wanted then
    return event.reply
  end
  if event and event.seq < wanted then
    from = event.id + 1
  else
    to = middle - 1
  end
end
return nil
